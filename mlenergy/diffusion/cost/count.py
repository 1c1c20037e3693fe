"""Operator counting on the meta device: nothing is computed, no weight exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.cost.inputs import denoiser_inputs, text_inputs, text_tokens
from mlenergy.diffusion.cost.live_bytes import peak_bytes
from mlenergy.diffusion.cost.workload import Workload
from mlenergy.diffusion.models.architectures.reader import Architecture, Component
from mlenergy.diffusion.weights.random.modules import empty_module

PIXELS_PER_CELL = 8  # and side: every AutoencoderKL here has four levels


class Counter:
    """Counts for one architecture; modules are built once, on the meta device."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self._modules: dict[tuple[str, torch.dtype], torch.nn.Module] = {}

    def module(self, name: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        """The component on the meta device, buffers included."""
        if (name, dtype) not in self._modules:
            part = self.architecture.components[name]
            self._modules[name, dtype] = empty_module(part).to("meta", dtype)
        return self._modules[name, dtype]

    def denoiser(self, rows: int, height_cells: int, width_cells: int, t5: int | None) -> int:
        """FLOPs of one call of the denoiser."""
        inputs = denoiser_inputs(self.architecture, rows, height_cells, width_cells, t5)
        module = self.module(self.architecture.denoiser.name)
        return _flops(lambda: module(**inputs))

    def text(self, encoder: Component, rows: int, t5: int | None) -> int:
        """FLOPs of one call of a text encoder."""
        inputs = text_inputs(encoder, rows, text_tokens(self.architecture, encoder, t5))
        module = self.module(encoder.name)
        return _flops(lambda: module(**inputs))

    def decode(self, rows: int, height_cells: int, width_cells: int) -> int:
        """FLOPs of the VAE's decoder."""
        module, latents = self._latents(rows, height_cells, width_cells, torch.float32)
        return _flops(lambda: module.decode(latents))

    def denoiser_bytes(
        self, rows: int, height_cells: int, width_cells: int, t5: int | None, dtype: torch.dtype
    ) -> int:
        """Peak bytes of activations of one call of the denoiser."""
        inputs = denoiser_inputs(self.architecture, rows, height_cells, width_cells, t5, "meta", dtype)
        module = self.module(self.architecture.denoiser.name, dtype)
        return peak_bytes(module, lambda: module(**inputs), inputs)

    def text_bytes(self, encoder: Component, rows: int, t5: int | None, dtype: torch.dtype) -> int:
        """Peak bytes of activations of one call of a text encoder."""
        inputs = text_inputs(encoder, rows, text_tokens(self.architecture, encoder, t5))
        if "attention_mask" in inputs:
            inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
        module = self.module(encoder.name, dtype)
        return peak_bytes(module, lambda: module(**inputs), inputs)

    def decode_bytes(self, rows: int, height_cells: int, width_cells: int, dtype: torch.dtype) -> int:
        """Peak bytes of activations of the VAE's decoder."""
        module, latents = self._latents(rows, height_cells, width_cells, dtype)
        return peak_bytes(module, lambda: module.decode(latents), latents)

    def _latents(
        self, rows: int, height_cells: int, width_cells: int, dtype: torch.dtype
    ) -> tuple[Any, torch.Tensor]:
        channels = self.architecture.components["vae"].config["latent_channels"]
        latents = torch.zeros((rows, channels, height_cells, width_cells), device="meta", dtype=dtype)
        return self.module("vae", dtype), latents


def count_workload(architecture: Architecture, workload: Workload) -> dict[str, int]:
    """FLOPs of the stages of one whole call, over all ranks together.

    Returns:
        text_encode, denoise_step and vae_decode in FLOPs (a multiply and an add are two).

    Raises:
        UserError: a component of a class that cannot be counted.
    """
    counter = Counter(architecture)
    height, width = workload.height_px // PIXELS_PER_CELL, workload.width_px // PIXELS_PER_CELL
    rows, t5 = workload.images, workload.t5_tokens
    return {
        "text_encode": workload.text_passes
        * sum(counter.text(encoder, rows, t5) for encoder in architecture.text_encoders),
        "denoise_step": counter.denoiser(rows * workload.guidance_rows, height, width, t5),
        "vae_decode": counter.decode(rows, height, width),
    }


def _flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())
