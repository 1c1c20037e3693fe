"""A plan's optimizations on one pipeline: applied in the right order, and observed while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mlenergy.diffusion.config.attention import attention_library
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.optimizations import precision
from mlenergy.diffusion.engines.optimizations.attention import (
    backend_told,
    bare_denoisers,
    check_gpu,
    layers_that_obey,
    set_attention,
)
from mlenergy.diffusion.engines.optimizations.attention_seen import attention_of_parts, watched_parts
from mlenergy.diffusion.engines.optimizations.backends import backends_record, set_backends
from mlenergy.diffusion.engines.optimizations.caches import CacheWork
from mlenergy.diffusion.engines.optimizations.compile import CompileWork
from mlenergy.diffusion.engines.optimizations.fused_qkv import fuse_qkv
from mlenergy.diffusion.engines.optimizations.layouts import layouts_seen, turn_channels_last
from mlenergy.diffusion.engines.optimizations.memory import VaeCalls, offload, resident_bytes
from mlenergy.diffusion.engines.optimizations.schedulers import replace_scheduler, scheduler_record
from mlenergy.diffusion.engines.optimizations.vae_dtype import DecodeDtype, hold_vae_in

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.engine import Batch

    _Run = Callable[[Batch, int], object]

_FEWEST_STEPS = 2  # some schedulers take no single step


class AppliedOptimizations:
    """The optimizations of one plan on one pipeline of one rank.

    An engine calls `before_split` on the pipeline as it was loaded (on `load_device`), splits the
    work over the ranks, calls `after_split`, and `begin_call` before every generation. `effects`
    is the record of what came of it.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        check_gpu(plan)
        self.plan = plan
        self.device = device
        self._pipeline: Any = None
        self._weights: dict[str, Any] = {}
        self._cache: CacheWork | None = None
        self._compile: CompileWork | None = None
        self._vae: VaeCalls | None = None
        self._decode_dtype: DecodeDtype | None = None
        self._fused: Counter[str] = Counter()  # over the denoisers
        self._last: Batch | None = None

    @property
    def load_device(self) -> torch.device:
        """Device to load to: under offloading the host, from which weights move as they are needed."""
        return torch.device("cpu") if self.plan.optimizations.offload is not None else self.device

    def before_split(self, pipeline: Any) -> None:
        """Change what every rank holds whole: the scheduler and how weights are stored.

        Raises:
            UserError: the model has nothing that an optimization works on.
        """
        optimizations, dtype = self.plan.optimizations, getattr(torch, self.plan.dtype)
        if optimizations.scheduler != "own":
            replace_scheduler(pipeline, optimizations.scheduler)
        if optimizations.vae_dtype != "own":
            hold_vae_in(pipeline.vae, getattr(torch, optimizations.vae_dtype))
        for name, denoiser in denoisers(pipeline, self.plan.spec.family).items():
            if optimizations.fuse_qkv:
                self._fused.update(fuse_qkv(denoiser))
            if optimizations.quantization is not None:
                self._weights[name] = precision.quantize(denoiser, optimizations.quantization)
            if optimizations.layerwise_fp8:
                self._weights[name] = precision.store_denoiser_in_fp8(denoiser, dtype)
        if optimizations.fp8_t5_encoder:
            name, encoder = precision.t5_of(pipeline)
            self._weights[name] = precision.store_t5_in_fp8(encoder, dtype)

    def after_split(self, pipeline: Any) -> None:
        """Change what runs on this rank: attention, compilation, caches, the VAE, offloading."""
        plan, optimizations = self.plan, self.plan.optimizations
        self._pipeline = pipeline
        set_backends(optimizations)
        set_attention(pipeline, plan)
        for name, part in self._channels_last_parts().items():
            turn_channels_last(part, f"--{name}_channels_last")
        if optimizations.compiled_parts:
            self._compile = self._compiled(pipeline)
        if optimizations.cache is not None:
            self._cache = CacheWork(pipeline, plan)
        if optimizations.attention_slicing:
            pipeline.enable_attention_slicing()
        if optimizations.vae_slicing or optimizations.vae_tiling:
            self._vae = VaeCalls(
                pipeline.vae, slicing=optimizations.vae_slicing, tiling=optimizations.vae_tiling
            )
        self._decode_dtype = DecodeDtype(pipeline.vae, optimizations.vae_dtype)
        if optimizations.offload is not None:
            offload(pipeline, optimizations.offload, self.device)

    def begin_call(self, batch: Batch) -> None:
        """Begin a generation: caches forget the image before, and counts start anew."""
        self._last = batch
        for work in (self._cache, self._compile, self._vae):
            if work is not None:
                work.begin_call()

    def effects(self, warmup_calls: int, run: _Run) -> dict[str, Any]:
        """Effects of the optimizations over the calls after the first `warmup_calls`; plain data.

        run: generates a batch in that many steps; the attention of each part's first call is looked at,
            so every rank has to call this.
        """
        found: dict[str, Any] = {"scheduler": scheduler_record(self._pipeline.scheduler)}
        if self._compile is not None:
            found["compile"] = self._compile.record(warmup_calls)
        if self._cache is not None:
            found["cache"] = self._cache.record(warmup_calls)
        if self._vae is not None:
            found["vae"] = self._vae.record(warmup_calls)
        if self._decode_dtype is not None:
            found["vae_dtype"] = self._decode_dtype.record()
        if self._fused:
            found["fused_qkv"] = dict(self._fused)
        if self.plan.device == "cuda":
            found["backends"] = backends_record()
        if self._weights:
            found["weights"] = self._weights
        if self.plan.optimizations.offload is not None:
            found["resident_bytes"] = resident_bytes(self._pipeline, self.device)
        found["attention"] = self._attention(run)
        if (batch := self._last) is not None and (parts := self._channels_last_parts()):
            parts = {name: getattr(part, "decoder", part) for name, part in parts.items()}
            found["channels_last"] = layouts_seen(parts, lambda: run(batch, self._few_steps))
        return found

    @property
    def _few_steps(self) -> int:
        return min(self.plan.steps, _FEWEST_STEPS)

    def _channels_last_parts(self) -> dict[str, torch.nn.Module]:
        """Components that are to be held with channels last."""
        optimizations = self.plan.optimizations
        asked = {"vae": optimizations.vae_channels_last, "unet": optimizations.unet_channels_last}
        return {name: getattr(self._pipeline, name) for name, is_asked in asked.items() if is_asked}

    def _compiled(self, pipeline: Any) -> CompileWork:
        family, optimizations = self.plan.spec.family, self.plan.optimizations
        others = {}
        if optimizations.compile_vae:
            others["vae"] = pipeline.vae.decoder  # called for each tile and slice, too
        if optimizations.compile_text_encoders:
            encoders = {name: getattr(pipeline, name, None) for name in family.text_encoders}
            others |= {name: part for name, part in encoders.items() if isinstance(part, torch.nn.Module)}
        return CompileWork(optimizations, self.plan.device_name, denoisers(pipeline, family), others)

    def _attention(self, run: _Run) -> dict[str, Any]:
        plan, pipeline, batch = self.plan, self._pipeline, self._last
        family = plan.spec.family
        models = bare_denoisers(pipeline, plan)
        layers = {name: layers_that_obey(model) for name, model in models.items()}
        known = {
            "asked": plan.optimizations.attention,
            "library": attention_library(plan),
            "told": backend_told(pipeline, plan),
            "layers": len(layers[family.denoiser]),
            "seen_uncompiled": plan.optimizations.compile_mode is not None,
        }
        if batch is None:
            unseen = {"kernels": None, "in_layers": None, "reason": "nothing was generated"}
            return {**known, **unseen, "parts": {}}
        watched = watched_parts(pipeline, family.stages)
        every_layer = [layer for own in layers.values() for layer in own]
        parts = attention_of_parts(watched, every_layer, lambda: run(batch, self._few_steps))
        # Of two denoisers the one in which more layers go their own way: the option acts on both.
        ran = [name for name in models if parts[name].in_layers is not None] or [family.denoiser]
        worst = max(ran, key=lambda name: len(layers[name]) - sum((parts[name].in_layers or {}).values()))
        own = parts[worst]
        return {
            **known,
            "layers": len(layers[worst]),
            "kernels": own.operators,
            "in_layers": own.in_layers,
            "reason": own.reason,
            "parts": {name: seen.record for name, seen in parts.items()},
        }
