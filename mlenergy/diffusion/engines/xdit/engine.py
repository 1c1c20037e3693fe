"""The xdit engine: a diffusers pipeline in xfuser's parallel wrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
)
from mlenergy.diffusion.engines.counted import flops_as_run, is_counted_as_it_runs
from mlenergy.diffusion.engines.latents import LatentsKeeper
from mlenergy.diffusion.engines.loading import free_memory, load_on_every_rank
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.engines.optimizations.precision import stored_weights
from mlenergy.diffusion.engines.xdit.groups import form_groups
from mlenergy.diffusion.engines.xdit.schedulers import check_scheduler
from mlenergy.diffusion.engines.xdit.setup import engine_config, engine_facts, prepare_xfuser
from mlenergy.diffusion.weights.load_report import LoadWatch, random_facts


class XditEngine:
    """One rank's share of an xfuser pipeline; every rank calls ``generate`` with the same batch."""

    name = "xdit"

    def __init__(
        self, plan: Plan, wrapper: Any, optimizations: AppliedOptimizations, report: LoadReport
    ) -> None:
        self.plan = plan
        self.device = optimizations.device
        self.report = report
        self._wrapper = wrapper
        self._optimizations = optimizations
        self._latents = LatentsKeeper(plan, wrapper.module)
        self._last: Batch | None = None

    @classmethod
    def load(cls, plan: Plan, cluster: Cluster) -> XditEngine:
        """Form xfuser's groups, read the weights, wrap the pipeline.

        Raises:
            UserError: xfuser is missing or of another version, the weights cannot be had, or the
                plan is one that xfuser cannot run.
        """
        watch, optimizations = LoadWatch(cluster.device), AppliedOptimizations(plan, cluster.device)
        patches = prepare_xfuser(plan)
        pipeline = load_on_every_rank(
            plan, cluster, optimizations, check=lambda folder: check_scheduler(plan, folder)
        )
        form_groups(plan.parallel, cluster.rank, plan.device)
        found = watch.facts(pipeline) | random_facts(pipeline, cluster)
        wrapper = _wrapped(pipeline, plan)
        optimizations.after_split(wrapper.module)
        found |= call_facts(plan, wrapper.module.scheduler)
        found["weight_bytes"] = stored_weights(wrapper.module)
        report = LoadReport(watch.load_s, {**engine_facts(plan, patches), **found})
        return cls(plan, wrapper, optimizations, report)

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline inside, whose parts xfuser has replaced by its own."""
        return self._wrapper.module

    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module that this rank calls, as xfuser has left it in the pipeline.

        The VAE is whole: pipelines call its decode, of which only the parts inside are forwards.
        """
        return {
            name: part
            for name, part in self.pipeline.components.items()
            if isinstance(part, torch.nn.Module) and name in self.plan.spec.family.stages
        }

    def generate(self, batch: Batch) -> Generated:
        """Images of this rank's data-parallel group, on the one rank of it that holds them."""
        return self._run(batch, self.plan.steps)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        """Record of what the optimizations did; see `AppliedOptimizations.effects`.

        Where a family's work is counted as it runs, `flops` has that of the last batch, generated once more.
        """
        last = self._last
        found = self._optimizations.effects(warmup_calls, self._run)
        if last is not None and is_counted_as_it_runs(self.plan):
            stages = self.plan.spec.family.stages
            found["flops"] = flops_as_run(self.components(), stages, lambda: self._run(last, self.plan.steps))
        return found

    def close(self) -> None:
        """Free the weights, and what xfuser keeps of them in its module globals."""
        from xfuser.core.cache_manager.cache_manager import get_cache_manager
        from xfuser.core.distributed import runtime_state

        get_cache_manager().cache.clear()
        runtime_state._RUNTIME = None
        self._wrapper = None
        free_memory(self.device)

    @torch.no_grad()
    def _run(self, batch: Batch, steps: int) -> Generated:
        from xfuser.core.distributed import get_data_parallel_rank

        self._last = batch
        self._optimizations.begin_call(batch)
        self._latents.begin_call()
        rows = group_rows(int(get_data_parallel_rank()), self.plan.parallel.data, len(batch.prompts))
        output = self._wrapper(
            # The whole batch: xfuser takes this group's own rows out of it, by the same division.
            prompt=list(batch.prompts),
            generator=noise_generators(batch.seeds[rows]),
            **{**call_arguments(self.plan), "num_inference_steps": steps},
        )
        if output is None or not self._is_output_rank():
            return Generated(None)
        made = outputs_of(self.plan, output)
        # xfuser's pipelines of videos give every rank but the one that decodes a list of Nones.
        if not isinstance(made, torch.Tensor):
            return Generated(None)
        check_outputs(self.plan, made)
        return Generated(made, rows.start, self._latents.taken())

    def _is_output_rank(self) -> bool:
        """True where images are taken from this rank, of several in a group that hold the same ones.

        xfuser gives images on every rank of a tensor-parallel group, and on both guidance ranks of a UNet.
        """
        from xfuser.core.distributed import get_classifier_free_guidance_rank
        from xfuser.core.distributed.parallel_state import get_tensor_model_parallel_rank

        if get_tensor_model_parallel_rank():
            return False
        unet = self.plan.spec.family.denoiser == "unet"
        return not unet or int(get_classifier_free_guidance_rank()) == self.plan.parallel.cfg - 1


def _wrapped(pipeline: Any, plan: Plan) -> Any:
    """The pipeline in xfuser's wrapper for this plan's degrees and dtype."""
    from xfuser.model_executor.pipelines.register import xFuserPipelineWrapperRegister

    config = engine_config(plan, plan.parallel)
    return xFuserPipelineWrapperRegister.get_class(pipeline)(pipeline, config)
