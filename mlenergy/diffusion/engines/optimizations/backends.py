"""Settings of torch's libraries for the whole process: cuDNN's choice of algorithms, TF32."""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.config.optimizations import Optimizations


def set_backends(optimizations: Optimizations) -> None:
    """Turn on what is asked for; what is not stays as torch, or the environment, has it."""
    if optimizations.cudnn_benchmark:
        torch.backends.cudnn.benchmark = True
    if optimizations.tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


def backends_record() -> dict[str, Any]:
    """The settings as they are now. Torch allows TF32 in cuDNN's float32 convolutions by default."""
    return {
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
        "tf32_products": bool(torch.backends.cuda.matmul.allow_tf32),
        "tf32_convolutions": bool(torch.backends.cudnn.allow_tf32),
    }
