"""The diffusers engine: the pipeline as diffusers has it, on CUDA, MPS or the CPU."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from mlenergy.diffusion.config.checks import check_plan
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engine import Batch, Generated, LoadReport
from mlenergy.diffusion.engines.call import call_arguments
from mlenergy.diffusion.engines.diffusers.cfg_parallel import split_guidance
from mlenergy.diffusion.engines.diffusers.mesh import Place, find_place
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.weights.load_report import LoadWatch, random_facts
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.pipeline import load


class DiffusersEngine:
    """One rank's share of a diffusers pipeline; every rank calls ``generate`` with the same batch."""

    name = "diffusers"

    def __init__(
        self, plan: Plan, pipeline: Any, place: Place, optimizations: AppliedOptimizations, report: LoadReport
    ) -> None:
        self.plan = plan
        self.place = place
        self.pipeline = pipeline
        self.device = optimizations.device
        self.report = report
        self._knobs = optimizations
        self._last: Batch | None = None

    @classmethod
    def load(cls, plan: Plan, cluster: Cluster) -> DiffusersEngine:
        """Read the weights to this rank's device and split the work as the plan says.

        Raises:
            UserError: the weights cannot be had, or degrees that do not fit.
        """
        check_plan(plan)
        watch, optimizations = LoadWatch(), AppliedOptimizations(plan, cluster.device)
        with (
            cluster.raise_on_all_ranks()
        ):  # groups are formed after it: no rank waits there for one that failed
            pipeline = load(locate(plan, cluster), plan, optimizations.load_device)
            optimizations.before_split(pipeline)
        place = find_place(plan.parallel, cluster.device)
        facts = {"diffusers_version": diffusers.__version__, "pipeline_class": type(pipeline).__name__}
        facts |= random_facts(pipeline, cluster)
        facts |= divide(pipeline, plan, place)
        optimizations.after_split(pipeline)
        facts |= watch.facts(pipeline)
        return cls(plan, pipeline, place, optimizations, LoadReport(watch.load_s, facts))

    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module of the pipeline, as this rank holds it."""
        parts = self.pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}

    def generate(self, batch: Batch) -> Generated:
        """Images of this rank's data-parallel group, on the first rank of the group."""
        self._last = batch
        return self._run(batch, self.plan.steps)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        """What the optimizations did; see `AppliedOptimizations.effects`."""
        return self._knobs.effects(warmup_calls, self._last, self._run)

    @torch.no_grad()
    def _run(self, batch: Batch, steps: int) -> Generated:
        self._knobs.begin_call()
        first, last = self.place.rows(len(batch.prompts), self.plan.parallel.data)
        # CPU generators, so that the same seed gives the same noise on every kind of device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in batch.seeds[first:last]]
        output = self.pipeline(
            prompt=list(batch.prompts[first:last]),
            generator=generators,
            **{**self._arguments(first, last), "num_inference_steps": steps},
        )
        return Generated(output.images, first) if self.place.speaks else Generated(None)

    def _arguments(self, first: int, last: int) -> dict[str, Any]:
        arguments = dict(call_arguments(self.plan))
        if not self.place.speaks:
            # Its image would be thrown away: decoding it would cost energy that no user gets anything for.
            arguments["output_type"] = "latent"
        if isinstance(arguments.get("negative_prompt"), list):  # one an image of the whole batch
            arguments["negative_prompt"] = arguments["negative_prompt"][first:last]
        return arguments

    def close(self) -> None:
        """Free the weights."""
        self.pipeline = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def divide(pipeline: Any, plan: Plan, place: Place) -> dict[str, Any]:
    """Split the denoiser's work over the ranks of one data-parallel group; returns facts on it."""
    denoiser = getattr(pipeline, plan.spec.family.denoiser)
    facts: dict[str, Any] = {"attention_backend": plan.optimizations.attention}
    if plan.parallel.sequence > 1:
        from mlenergy.diffusion.engines.diffusers.context_parallel import enable_context_parallel

        facts |= enable_context_parallel(denoiser, plan, place)
    if plan.parallel.tensor > 1:
        from mlenergy.diffusion.engines.diffusers.tensor_parallel import shard_weights

        shard_weights(denoiser, plan, place)
    if plan.parallel.cfg > 1:
        split_guidance(denoiser, place.group("cfg"))
    return facts
