"""The other kind of xdit engine: xfuser's transformer in diffusers' own pipeline.

xfuser 0.7.0 serves its newer models so (Qwen-Image, Z-Image, FLUX.2 klein; Wan and HunyuanVideo): it has no
wrapper of their pipelines, but a subclass of their transformer that shares a sequence out by itself and
returns the whole output on every rank. The pipeline stays diffusers' own, and with it text, scheduler,
guidance and decoding; only one rank of a data-parallel group decodes.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engine import LoadReport
from mlenergy.diffusion.engines.call import call_facts, set_guiders
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine, share_guidance, sound_facts
from mlenergy.diffusion.engines.diffusers.mesh import position_in_mesh
from mlenergy.diffusion.engines.loading import load_on_every_rank
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.engines.optimizations.precision import stored_weights
from mlenergy.diffusion.engines.xdit.groups import form_groups
from mlenergy.diffusion.engines.xdit.setup import engine_config, engine_facts, prepare_xfuser
from mlenergy.diffusion.weights.load_report import LoadWatch, random_facts

_TRANSFORMERS = "xfuser.model_executor.models.transformers"


class ExchangedEngine(DiffusersEngine):
    """One rank's share of diffusers' pipeline around xfuser's transformer."""

    name = "xdit"

    @classmethod
    def load(cls, plan: Plan, cluster: Cluster) -> ExchangedEngine:
        """Read the weights, exchange the transformer where a sequence is shared, form xfuser's groups.

        Raises:
            UserError: xfuser is missing or of another version, the weights cannot be had, or an optimization
                does not fit the model.
        """
        watch, optimizations = LoadWatch(cluster.device), AppliedOptimizations(plan, cluster.device)
        patches = prepare_xfuser(plan)
        is_shared = plan.parallel.sequence > 1
        prepare = _exchange if is_shared else _nothing
        pipeline = load_on_every_rank(plan, cluster, optimizations, prepare=lambda pipe: prepare(pipe, plan))
        set_guiders(plan, pipeline)
        # xfuser splits guidance by rows, which not all of these pipelines have in one batch: its groups see
        # the two halves as two data-parallel ones, in the same order of ranks, and the mesh tells them apart.
        folded = replace(
            plan.parallel, data=plan.parallel.data * plan.parallel.cfg, cfg=1, parallel_vae=False
        )
        form_groups(folded, cluster.rank, plan.device)
        _describe(pipeline, engine_config(plan, folded))
        position = position_in_mesh(plan.parallel, cluster.device)
        if plan.parallel.cfg > 1:
            for denoiser in denoisers(pipeline, plan.spec.family).values():
                share_guidance(denoiser, plan, position.group("cfg"))
        if plan.parallel.parallel_vae:
            _share_decoder(pipeline.vae)
        optimizations.after_split(pipeline)
        found = watch.facts(pipeline) | random_facts(pipeline, cluster) | call_facts(plan, pipeline.scheduler)
        found["weight_bytes"] = stored_weights(pipeline)
        facts = {
            **engine_facts(plan, patches),
            "transformer_exchanged": is_shared,
            **found,
            **sound_facts(plan),
        }
        return cls(plan, pipeline, position, optimizations, LoadReport(watch.load_s, facts))

    def close(self) -> None:
        """Free the weights, and what xfuser keeps of them in its module globals."""
        from xfuser.core.distributed import runtime_state

        runtime_state._RUNTIME = None
        super().close()


def _describe(pipeline: Any, config: Any) -> None:
    """Tell xfuser's attention which degrees and kernel are used."""
    from xfuser.core.distributed.runtime_state import initialize_runtime_state

    initialize_runtime_state(pipeline, config)


def _nothing(_pipeline: Any, _plan: Plan) -> None:
    """Leave diffusers' transformer: under data- and CFG-parallelism alone no attention is shared."""


def _exchange(pipeline: Any, plan: Plan) -> None:
    """Put xfuser's transformers in the place of diffusers' own, with the same weights, on their device."""
    from accelerate import init_empty_weights

    path = plan.spec.family.exchanged_transformer
    assert path is not None
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(f"{_TRANSFORMERS}.{module}"), name)
    for part, own in denoisers(pipeline, plan.spec.family).items():
        config = {key: value for key, value in own.config.items() if not key.startswith("_")}
        with init_empty_weights(include_buffers=False):
            exchanged = _constructed(kind, config)
        exchanged.load_state_dict(own.state_dict(), assign=True)
        for name, buffer in own.named_buffers():  # tables that no file holds
            owner, _, key = name.rpartition(".")
            exchanged.get_submodule(owner)._buffers[key] = buffer
        _move_tables(exchanged, next(own.parameters()).device)
        setattr(pipeline, part, exchanged.requires_grad_(False).eval())


def _move_tables(module: torch.nn.Module, device: torch.device) -> None:
    """Buffers that xfuser's class adds are made on the CPU."""
    for owner in module.modules():
        for key, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[key] = buffer.to(device)


def _share_decoder(vae: Any) -> None:
    """Let each rank decode a band of rows, by the library of xfuser's authors; every rank gets all pixels.

    config/checks/ refuse it beside data-parallel groups, so that all ranks work on the same images.
    """
    from distvae.vae import parallel  # of the extra that brings xfuser

    parallel.parallelize_decoder(vae, dist.group.WORLD)


def _constructed(kind: Any, config: dict[str, Any]) -> Any:
    """By from_config, where some classes install their attention; those of any keywords lose them there."""
    named = inspect.signature(kind.__init__).parameters.values()
    any_keywords = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named)
    return kind(**config) if any_keywords else kind.from_config(config)
