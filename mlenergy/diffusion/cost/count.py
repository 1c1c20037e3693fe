"""FLOPs and live bytes of one call, counted on the meta device: nothing is computed, no weight exists."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.cost.inputs import LatentSize, denoiser_inputs, text_inputs, text_tokens
from mlenergy.diffusion.cost.kernels import kernel_work
from mlenergy.diffusion.models.architectures.reader import Architecture, Component
from mlenergy.diffusion.models.facts import has_frames, latent_channels
from mlenergy.diffusion.weights.random.modules import empty_module


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

    def denoiser(self, rows: int, cells: LatentSize, t5: int | None) -> int:
        """FLOPs of one call of the denoiser."""
        inputs = denoiser_inputs(self.architecture, rows, cells, t5)
        module = self.module(self.architecture.denoiser.name)
        return _flops(lambda: module(**inputs))

    def text(self, encoder: Component, rows: int, t5: int | None) -> int:
        """FLOPs of one call of a text encoder."""
        inputs = text_inputs(encoder, rows, text_tokens(self.architecture, encoder, t5))
        module = self.module(encoder.name)
        return _flops(lambda: module(**inputs))

    def decode(self, rows: int, cells: LatentSize) -> int:
        """FLOPs of the VAE's decoder."""
        module, latents = self._latents(rows, cells, torch.float32)
        return _flops(lambda: module.decode(latents))

    def denoiser_bytes(self, rows: int, cells: LatentSize, t5: int | None, dtype: torch.dtype) -> int:
        """Peak bytes of activations of one call of the denoiser."""
        inputs = denoiser_inputs(self.architecture, rows, cells, t5, "meta", dtype)
        module = self.module(self.architecture.denoiser.name, dtype)
        return peak_bytes(module, lambda: module(**inputs), inputs)

    def text_bytes(self, encoder: Component, rows: int, t5: int | None, dtype: torch.dtype) -> int:
        """Peak bytes of activations of one call of a text encoder."""
        inputs = text_inputs(encoder, rows, text_tokens(self.architecture, encoder, t5))
        if "attention_mask" in inputs:
            inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
        module = self.module(encoder.name, dtype)
        return peak_bytes(module, lambda: module(**inputs), inputs)

    def decode_bytes(self, rows: int, cells: LatentSize, dtype: torch.dtype) -> int:
        """Peak bytes of activations of the VAE's decoder."""
        module, latents = self._latents(rows, cells, dtype)
        return peak_bytes(module, lambda: module.decode(latents), latents)

    def denoiser_kernels(self, rows: int, cells: LatentSize, t5: int | None) -> dict[str, float]:
        """Work of one call of the denoiser in bfloat16, by kind of kernel."""
        dtype = torch.bfloat16
        inputs = denoiser_inputs(self.architecture, rows, cells, t5, "meta", dtype)
        module = self.module(self.architecture.denoiser.name, dtype)
        return kernel_work(lambda: module(**inputs))

    def text_kernels(self, encoder: Component, rows: int, t5: int | None) -> dict[str, float]:
        """Work of one call of a text encoder in bfloat16, by kind of kernel."""
        inputs = text_inputs(encoder, rows, text_tokens(self.architecture, encoder, t5))
        if "attention_mask" in inputs:
            inputs["attention_mask"] = inputs["attention_mask"].to(torch.bfloat16)
        module = self.module(encoder.name, torch.bfloat16)
        return kernel_work(lambda: module(**inputs))

    def decode_kernels(self, rows: int, cells: LatentSize) -> dict[str, float]:
        """Work of the VAE's decoder in bfloat16, by kind of kernel."""
        module, latents = self._latents(rows, cells, torch.bfloat16)
        return kernel_work(lambda: module.decode(latents))

    def _latents(self, rows: int, cells: LatentSize, dtype: torch.dtype) -> tuple[Any, torch.Tensor]:
        config = self.architecture.components["vae"].config
        # VAEs of videos take an image as one frame.
        frames = (cells.frames,) if has_frames(config) else ()
        shape = (rows, latent_channels(config) or 0, *frames, cells.height, cells.width)
        return self.module("vae", dtype), torch.zeros(shape, device="meta", dtype=dtype)


def _flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators make and that still live; keeps the largest sum.

    What an operator allocates and frees inside its own kernel (workspaces) is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def watch(self, tensors: Any) -> None:
        """Count these tensors, too (the inputs, which were made before)."""
        for leaf in tree_leaves(tensors):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.watch(output)
        return output

    def ignore(self, module: torch.nn.Module) -> None:
        """Leave the module's weights out: an operator that returns a view of one makes nothing new."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._known.add(tensor.untyped_storage()._cdata)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class FusedAttention(TorchFunctionMode):
    """Makes attention return its output and nothing else, as fused kernels do.

    On the meta device torch takes the plain way instead, whose matrix of every token with
    every token no GPU ever holds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, _key, value = args[:3] if len(args) >= 3 else _named(args, kwargs or {})
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def peak_bytes(module: torch.nn.Module, call: Callable[[], Any], inputs: Any) -> int:
    """Largest sum of live activation bytes in `call`, inputs included and weights not."""
    counter = LiveBytes()
    counter.ignore(module)
    counter.watch(inputs)
    with torch.no_grad(), FusedAttention(), counter:
        call()
    return counter.peak


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    return named["query"], named["key"], named["value"]
