"""The diffusers engine: the pipeline as diffusers has it, on CUDA, MPS or the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import diffusers
import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engine import Batch, Generated, LoadReport
from mlenergy.diffusion.engines.call import (
    call_arguments,
    call_facts,
    check_outputs,
    group_rows,
    noise_generators,
    outputs_of,
    set_guiders,
)
from mlenergy.diffusion.engines.counted import flops_as_run, is_counted_as_it_runs
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.diffusers.cfg_calls import share_guidance_calls
from mlenergy.diffusion.engines.diffusers.cfg_parallel import split_guidance
from mlenergy.diffusion.engines.diffusers.context_parallel import enable_context_parallel
from mlenergy.diffusion.engines.diffusers.mesh import MeshPosition, position_in_mesh
from mlenergy.diffusion.engines.latents import LatentsKeeper
from mlenergy.diffusion.engines.loading import free_memory, load_on_every_rank
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.engines.optimizations.precision import stored_weights
from mlenergy.diffusion.weights.load_report import LoadWatch, random_facts


class DiffusersEngine:
    """One rank's share of a diffusers pipeline; every rank calls ``generate`` with the same batch."""

    name = "diffusers"

    def __init__(
        self,
        plan: Plan,
        pipeline: Any,
        position: MeshPosition,
        optimizations: AppliedOptimizations,
        report: LoadReport,
    ) -> None:
        self.plan = plan
        self.pipeline = pipeline
        self.device = optimizations.device
        self.report = report
        self._position = position
        self._optimizations = optimizations
        self._last: Batch | None = None
        self._latents = LatentsKeeper(plan, pipeline)

    @classmethod
    def load(cls, plan: Plan, cluster: Cluster) -> DiffusersEngine:
        """Read the weights to this rank's device and split the work as the plan says.

        Raises:
            UserError: the weights cannot be had, or an optimization does not fit the model.
        """
        watch, optimizations = LoadWatch(cluster.device), AppliedOptimizations(plan, cluster.device)
        pipeline = load_on_every_rank(plan, cluster, optimizations)
        set_guiders(plan, pipeline)
        position = position_in_mesh(plan.parallel, cluster.device)
        facts = {
            "diffusers_version": diffusers.__version__,
            "pipeline_class": type(pipeline).__name__,
            **random_facts(pipeline, cluster),
            **_split(pipeline, plan, position),
            **sound_facts(plan),
        }
        optimizations.after_split(pipeline)
        facts |= watch.facts(pipeline) | call_facts(plan, pipeline.scheduler)
        facts["weight_bytes"] = stored_weights(pipeline)
        return cls(plan, pipeline, position, optimizations, LoadReport(watch.load_s, facts))

    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module of the pipeline, as this rank holds it."""
        parts = self.pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}

    def generate(self, batch: Batch) -> Generated:
        """Images of this rank's data-parallel group, on the first rank of the group."""
        return self._run(batch, self.plan.steps)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        """Record of what the optimizations did; see `AppliedOptimizations.effects`.

        Where a family's work is counted as it runs, `flops` has that of the last batch, generated once more.
        """
        last = self._last
        found = self._optimizations.effects(warmup_calls, self._run)
        if last is not None and is_counted_as_it_runs(self.plan):
            found["flops"] = self._flops_as_run(last)
        return found

    def close(self) -> None:
        """Free the weights."""
        self.pipeline = None
        free_memory(self.device)

    def _flops_as_run(self, batch: Batch) -> dict[str, Any]:
        """FLOPs of this rank's share of a batch, with all steps."""
        stages = self.plan.spec.family.stages
        return flops_as_run(self.components(), stages, lambda: self._run(batch, self.plan.steps))

    @torch.no_grad()
    def _run(self, batch: Batch, steps: int) -> Generated:
        self._last = batch
        self._optimizations.begin_call(batch)
        self._latents.begin_call()
        rows = group_rows(self._position.data_rank, self.plan.parallel.data, len(batch.prompts))
        arguments = {**call_arguments(self.plan), "num_inference_steps": steps}
        if "negative_prompt" in arguments:  # one an image of the whole batch
            arguments["negative_prompt"] = arguments["negative_prompt"][rows]
        if not (self._position.is_output_rank or self.plan.parallel.parallel_vae):
            # Its image would be thrown away: decoding it would cost energy that no user gets anything for.
            arguments["output_type"] = "latent"
        generators = noise_generators(batch.seeds[rows])
        output = self.pipeline(prompt=list(batch.prompts[rows]), generator=generators, **arguments)
        if not self._position.is_output_rank:
            return Generated(None)
        made = outputs_of(self.plan, output)
        check_outputs(self.plan, made)
        return Generated(made, rows.start, self._latents.taken())


def sound_facts(plan: Plan) -> dict[str, Any]:
    """A fact of the load report where a pipeline returns sound as well; nothing where it does not."""
    return {"sound": "computed, not written"} if plan.spec.family.makes_sound else {}


def _split(pipeline: Any, plan: Plan, position: MeshPosition) -> dict[str, Any]:
    """Split the denoiser's work over the ranks of one data-parallel group; returns facts on it."""
    facts: dict[str, Any] = {}
    for denoiser in denoisers(pipeline, plan.spec.family).values():
        if plan.parallel.sequence > 1:
            facts |= enable_context_parallel(denoiser, plan, position)
        if plan.parallel.tensor > 1:
            _shard_weights(denoiser, plan, position)
        if plan.parallel.cfg > 1:
            share_guidance(denoiser, plan, position.group("cfg"))
    return facts


def share_guidance(denoiser: Any, plan: Plan, group: Any) -> None:
    """Let the two ranks of `group` share what guidance asks of the denoiser: halves of a batch, or calls."""
    if plan.spec.family.separate_guidance:
        share_guidance_calls(denoiser, group)
    else:
        split_guidance(denoiser, group)


def _shard_weights(denoiser: Any, plan: Plan, position: MeshPosition) -> None:
    """Replace large weights of `denoiser` by this rank's slices: diffusers' tensor parallelism, by DTensor.

    The whole denoiser is on the device for a moment before. Its class has a plan of its own;
    models/families.py offers the mode only where there is one.
    """
    # The loader notes that it placed the model, and diffusers then refuses to shard it. The note
    # is about one device, with no hook of accelerate left on any module.
    denoiser.__dict__.pop("hf_device_map", None)
    assert position.mesh is not None
    config = diffusers.TensorParallelConfig(mesh=position.mesh["tensor"])
    adapted: AbstractContextManager[None] = nullcontext()
    if plan.device == "cpu":
        from mlenergy.diffusion.engines.diffusers import cpu  # only here: nothing of it may reach a GPU run

        cpu.allow_tensor_parallel()
        adapted = cpu.countable_device()
    with adapted:
        denoiser.enable_parallelism(config=config)
