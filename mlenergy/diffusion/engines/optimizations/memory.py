"""Less memory: weights in host memory until they are needed, the VAE's decoder on parts of its input."""

from __future__ import annotations

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


class VaeCalls:
    """Turns slicing and tiling on, and counts how often the decoder runs in each generation."""

    def __init__(self, vae: Any, *, slicing: bool, tiling: bool) -> None:
        if slicing:
            vae.enable_slicing()
        if tiling:
            vae.enable_tiling()
        self._calls: list[list[int]] = []  # per generation: rows of each decoder call
        vae.decoder.register_forward_pre_hook(self._on_decoder)

    def begin_call(self) -> None:
        """Begin a generation."""
        self._calls.append([])

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Decoder calls of one generation after warm-up, and the images in each; the same every time."""
        rows = next((rows for rows in self._calls[warmup_calls:] if rows), [])
        return {"decoder_calls": len(rows), "images_per_call": max(rows, default=None)}

    def _on_decoder(self, _: Any, args: tuple[Any, ...]) -> None:
        if self._calls:
            self._calls[-1].append(int(args[0].shape[0]))
