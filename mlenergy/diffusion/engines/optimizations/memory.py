"""Less memory: weights in host memory until they are needed, the VAE's decoder on parts of its input."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass
class _Decoding:
    """One generation: what was to be decoded, and what the decoder was given of it."""

    wholes: list[_Call] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)


class VaeCalls:
    """Turns slicing and tiling on, and watches what the decoder is given in each generation."""

    def __init__(self, vae: Any, *, slicing: bool, tiling: bool) -> None:
        if slicing:
            vae.enable_slicing()
        if tiling:
            vae.enable_tiling()
        self._generations: list[_Decoding] = []
        vae.decoder.register_forward_pre_hook(self._on_decoder)
        decode = vae.decode

        @functools.wraps(decode)
        def watched(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
            if self._generations:
                self._generations[-1].wholes.append(_call(latents))
            return decode(latents, *args, **options)

        vae.decode = watched

    def begin_call(self) -> None:
        """Begin a generation."""
        self._generations.append(_Decoding())

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Decoder calls of one generation after warm-up, and what each was given; the same every time.

        tiled: a call had a part of the cells of a frame. Some decoders of videos take a few frames at a time
            whatever they are told, so that a part of the frames says nothing.
        cells_ratio: cells that the calls were given over those that were to be decoded. Tiles overlap, so
            that it says how much is decoded twice; about the ratio of the work.
        Both are None on a rank that did not decode.
        """
        generations = self._generations[warmup_calls:]
        one = next((each for each in generations if each.calls), _Decoding())
        found: dict[str, Any] = {
            "decoder_calls": len(one.calls),
            "images_per_call": max((call.rows for call in one.calls), default=None),
            "tiled": None,
            "cells_ratio": None,
        }
        if one.calls and one.wholes:
            whole = max(call.cells for call in one.wholes)
            found["tiled"] = any(call.cells < whole for call in one.calls)
            found["cells_ratio"] = _cells(one.calls) / _cells(one.wholes)
        return found

    def _on_decoder(self, _: Any, args: tuple[Any, ...]) -> None:
        if self._generations:
            self._generations[-1].calls.append(_call(args[0]))


def _cells(calls: Sequence[_Call]) -> int:
    return sum(call.rows * call.frames * call.cells for call in calls)


def _call(latents: torch.Tensor) -> _Call:
    frames = latents.shape[2] if latents.ndim == 5 else 1
    return _Call(latents.shape[0], frames, latents.shape[-2] * latents.shape[-1])
