"""The type that the VAE is held and decodes in."""

from __future__ import annotations

import functools
from typing import Any

import torch

from mlenergy.diffusion.config.optimizations import VaeDtype


def hold_vae_in(vae: Any, dtype: torch.dtype) -> None:
    """Cast the VAE once, and let it take latents of another type.

    SDXL's pipeline in float16 casts a VAE whose file says ``force_upcast`` to float32 for every batch and
    back; one that is asked to be float16 is told that it need not be.
    """
    vae.to(dtype)
    vae.register_to_config(force_upcast=False)
    decode = vae.decode

    @functools.wraps(decode)
    def decode_in_own_type(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        return decode(latents.to(dtype), *args, **options)

    vae.decode = decode_in_own_type


class DecodeDtype:
    """Sees the type that the VAE's decoder has while it runs."""

    def __init__(self, vae: Any, asked: VaeDtype) -> None:
        self._asked = asked
        self._decoded: str | None = None
        vae.decoder.register_forward_pre_hook(self._on_decoder)

    def record(self) -> dict[str, Any]:
        """The requested type, and that of the last decoding; None on a rank that did not decode."""
        return {"asked": self._asked, "decoded": self._decoded}

    def _on_decoder(self, decoder: torch.nn.Module, _: Any) -> None:
        self._decoded = str(next(decoder.parameters()).dtype).removeprefix("torch.")
