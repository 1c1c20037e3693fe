"""Less memory: weights in host memory until they are needed, the VAE's decoder on parts of its input."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from mlenergy.diffusion.config.optimizations import Offload


def offload(pipeline: Any, kind: Offload, device: torch.device) -> None:
    """Hook the pipeline, whose weights lie in host memory, so that they come to `device` in time.

    model: whole components; sequential: layer by layer, each waited for; group: layer by layer,
    the next one copied while one runs.
    """
    if getattr(pipeline, "hf_device_map", None) is not None:
        pipeline.reset_device_map()  # the loader's note; diffusers offloads nothing that has one
    if kind == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif kind == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )


def resident_bytes(pipeline: Any, device: torch.device) -> int:
    """Bytes of parameters that lie on `device` now, between two generations."""
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    parameters = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.nbytes for p in parameters.values() if p.device.type == device.type)


@dataclass(frozen=True)
class _Call:
    """The input of one call of the decoder: images, latent frames (1 of an image) and cells of a frame."""

    rows: int
    frames: int
    cells: int


class VaeCalls:
    """Turns slicing and tiling on, and watches what the decoder is given in each generation."""

    def __init__(self, vae: Any, *, slicing: bool, tiling: bool) -> None:
        if slicing:
            vae.enable_slicing()
        if tiling:
            vae.enable_tiling()
        self._calls: list[list[_Call]] = []  # per generation
        self._whole: _Call | None = None  # what the last decoding was given
        vae.decoder.register_forward_pre_hook(self._on_decoder)
        decode = vae.decode

        @functools.wraps(decode)
        def watched(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
            self._whole = _call(latents)
            return decode(latents, *args, **options)

        vae.decode = watched

    def begin_call(self) -> None:
        """Begin a generation."""
        self._calls.append([])

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Decoder calls of one generation after warm-up, and what each was given; the same every time.

        tiled: a call had a part of the cells of a frame, or several frames but not all of them: some decoders
            of videos take frame after frame anyway. None on a rank that did not decode.
        """
        calls = next((calls for calls in self._calls[warmup_calls:] if calls), [])
        whole = self._whole
        tiled = None
        if calls and whole is not None:
            tiled = any(call.cells < whole.cells or 1 < call.frames < whole.frames for call in calls)
        return {
            "decoder_calls": len(calls),
            "images_per_call": max((call.rows for call in calls), default=None),
            "tiled": tiled,
        }

    def _on_decoder(self, _: Any, args: tuple[Any, ...]) -> None:
        if self._calls:
            self._calls[-1].append(_call(args[0]))


def _call(latents: torch.Tensor) -> _Call:
    frames = latents.shape[2] if latents.ndim == 5 else 1
    return _Call(latents.shape[0], frames, latents.shape[-2] * latents.shape[-1])
