"""The final latents of a call, as the decoder takes them: kept by reference, without more work."""

from __future__ import annotations

import functools
from typing import Any

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError


class LatentsKeeper:
    """Latents that a pipeline gives to its decoder in one call; none where the plan does not ask for them."""

    def __init__(self, plan: Plan, pipeline: Any) -> None:
        self._kept: list[torch.Tensor] = []
        if plan.save_latents:
            self._watch(pipeline)

    def begin_call(self) -> None:
        """Forget those of the call before."""
        self._kept = []

    def taken(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the decoder in this call, in its order; their rows together are the outputs."""
        return tuple(self._kept)

    def _watch(self, pipeline: Any) -> None:
        """Keep a reference to what `decode` of the pipeline's VAE is given, and call it unchanged.

        Raises:
            UserError: the pipeline has no VAE.
        """
        vae = getattr(pipeline, "vae", None)
        if vae is None or not hasattr(vae, "decode"):
            raise UserError("--save_latents: this pipeline decodes no latents; leave it out")
        decode = vae.decode

        @functools.wraps(decode)
        def kept(z: torch.Tensor, *args: Any, **options: Any) -> Any:
            self._kept.append(z)  # not a view of it, which would be one more operator in the window
            return decode(z, *args, **options)

        vae.decode = kept
