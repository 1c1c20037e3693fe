"""The other sides of bench_startup.py: xfuser and diffusers alone, as their documentation calls them.

    torchrun --nproc_per_node=2 scripts/bench_startup_bare.py xfuser FOLDER SIDE_PX STEPS IMAGE
    python scripts/bench_startup_bare.py diffusers FOLDER SIDE_PX STEPS IMAGE

Both load the pipeline of FOLDER, generate one image to warm up and a second one, and save that. Nothing of
this project is imported, but for one thing: xfuser 0.7.0 runs on no CPU, so that there the same adapter as in
the benchmark is put into it.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main(argv: list[str]) -> None:
    """Load, generate twice, save."""
    library, folder, side_px, steps, image = argv
    generate = {"xfuser": xfuser_pipeline, "diffusers": diffusers_pipeline}[library](folder)
    import torch

    for seed in (1, 2):
        output = generate(
            prompt=["a red fox in snow"],
            height=int(side_px),
            width=int(side_px),
            num_inference_steps=int(steps),
            generator=torch.Generator().manual_seed(seed),
        )
    if output is not None and os.environ.get("RANK", "0") == "0":
        output.images[0].save(image)


def diffusers_pipeline(folder: str) -> Any:
    """The pipeline as diffusers loads it."""
    import torch
    from diffusers import FluxPipeline

    device, dtype = _device()
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype)).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def xfuser_pipeline(folder: str) -> Any:
    """The pipeline in xfuser's wrapper, Ulysses over all processes."""
    import torch

    device, dtype = _device()
    if device == "cpu":
        from mlenergy.diffusion.engines.xdit.cpu import adapt

        adapt()
    from xfuser import xFuserArgs, xFuserFluxPipeline
    from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel

    ranks = int(os.environ["WORLD_SIZE"])
    backend = "nccl" if device.startswith("cuda") else "gloo"
    init_distributed_environment(
        world_size=ranks,
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        backend=backend,
    )
    initialize_model_parallel(
        sequence_parallel_degree=ranks, ulysses_degree=ranks, ring_degree=1, backend=backend
    )
    config, _ = xFuserArgs(
        model=folder, ulysses_degree=ranks, ring_degree=1, attention_backend="sdpa_flash"
    ).create_config()
    config.runtime_config.dtype = getattr(torch, dtype)
    pipeline = xFuserFluxPipeline.from_pretrained(
        pretrained_model_name_or_path=folder, engine_config=config, torch_dtype=getattr(torch, dtype)
    )
    pipeline.module.to(device)
    pipeline.module.set_progress_bar_config(disable=True)
    return pipeline


def _device() -> tuple[str, str]:
    """This process's device, and the dtype that fits it."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", "float32"
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}", "bfloat16"


if __name__ == "__main__":
    main(sys.argv[1:])
