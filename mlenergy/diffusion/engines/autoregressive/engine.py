"""The autoregressive engine: images by next-scale prediction, every data-parallel rank its own.

A model plugs in here in three steps:

1. Its family (`models/families.py`) has the engine "autoregressive" in `modes` and `predicts="scales"`; its
   specs (`models/listed.py`) have a `NextScale` with the scales of every image size, its files' names and the
   sizes that its modules are built from (`config`).
2. A builder `(plan, files, device) -> NextScaleModel` in `_BUILDERS`, by the family's pipeline class. `files`
   maps components to checkpoints on this machine; it is None for random weights. What the model has to
   offer stands in `sampling.NextScaleModel`; the loop over the scales, guidance, top-k and top-p, the random
   numbers, the share of each rank, stage times and results are done for it.
3. Its costs in `cost/next_scale.py`, by the class of its `config`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engine import Batch, Generated, LoadReport
from mlenergy.diffusion.engines.autoregressive.cuda_graphs import GraphRecorder, GraphWork
from mlenergy.diffusion.engines.autoregressive.files import find_files
from mlenergy.diffusion.engines.autoregressive.infinity_model import build_infinity
from mlenergy.diffusion.engines.autoregressive.sampling import NextScaleModel, SamplingOptions, generate
from mlenergy.diffusion.engines.autoregressive.var_model import build_var
from mlenergy.diffusion.engines.call import group_rows
from mlenergy.diffusion.engines.loading import free_memory
from mlenergy.diffusion.engines.optimizations.attention_seen import attention_of_parts, watched_parts
from mlenergy.diffusion.engines.optimizations.backends import backends_record, set_backends
from mlenergy.diffusion.engines.optimizations.compile import CompileWork
from mlenergy.diffusion.engines.optimizations.precision import stored_weights
from mlenergy.diffusion.measure.window import synchronize
from mlenergy.diffusion.weights.files import component_files
from mlenergy.diffusion.weights.load_report import LoadWatch, random_facts
from mlenergy.diffusion.weights.random.pipeline import note_start
from mlenergy.diffusion.weights.reading import note_reading

Builder = Callable[[Plan, Mapping[str, Path] | None, torch.device], NextScaleModel]

_BUILDERS: Mapping[str, Builder] = {"VAR": build_var, "Infinity": build_infinity}
_SCHEDULER = "next-scale prediction"  # in the place of a scheduler's class


class AutoregressiveEngine:
    """One rank's share of the batch; every rank calls ``generate`` with the same batch."""

    name = "autoregressive"

    def __init__(
        self, plan: Plan, model: NextScaleModel, device: torch.device, data_rank: int, report: LoadReport
    ) -> None:
        assert plan.schedule is not None and plan.top_k is not None and plan.top_p is not None
        self.plan = plan
        self.device = device
        self.report = report
        self._model: NextScaleModel | None = model
        self._data_rank = data_rank
        self._schedule = plan.schedule
        scale = plan.guidance_scale if plan.runs_guidance_batch else None
        self._options = SamplingOptions(scale, plan.top_k, plan.top_p)
        self._last: Batch | None = None
        mode = plan.optimizations.compile_mode
        transformer = model.components["transformer"]
        self._compile = None
        if mode is not None:
            self._compile = CompileWork(plan.optimizations, plan.device_name, {"transformer": transformer})
        set_backends(plan.optimizations)
        self._graphs: GraphWork | None = None
        if plan.optimizations.cuda_graphs:
            decoder = model.components["vae"].get_submodule("decoder")
            self._graphs = GraphWork(transformer, decoder, GraphRecorder())

    @classmethod
    def load(cls, plan: Plan, cluster: Cluster) -> AutoregressiveEngine:
        """Read or draw the weights on this rank's device.

        Raises:
            UserError: on every rank, the first rank's: a file is missing or holds other keys.
        """
        watch = LoadWatch(cluster.device)
        files = find_files(plan, cluster)
        with cluster.raise_on_all_ranks():
            started = time.perf_counter()
            model = _BUILDERS[plan.spec.family.pipeline_class](plan, files, cluster.device)
            if files is None:
                note_start(model, started, model.components)
            else:
                synchronize(cluster.device)
                note_reading(model, _checkpoints(files), time.perf_counter() - started, shard_threads=1)
        facts: dict[str, Any] = {
            "pipeline_class": plan.spec.family.pipeline_class,
            **random_facts(model, cluster),
            **watch.facts_of(model, None if files is None else next(iter(files.values())).parent),
            "denoiser_calls": plan.steps,  # one forward a scale
            "scheduler": _SCHEDULER,
            "weight_bytes": stored_weights(model),
        }
        return cls(plan, model, cluster.device, cluster.rank.rank, LoadReport(watch.load_s, facts))

    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module, as this rank holds it."""
        assert self._model is not None
        return self._model.components

    def generate(self, batch: Batch) -> Generated:
        """Images of this rank's share of the batch."""
        rows = group_rows(self._data_rank, self.plan.parallel.data, len(batch.seeds))
        return Generated(self._run(_rows_of(batch, rows)), rows.start)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        """Record of what compiling did and of the attention kernels that run, which one generation shows."""
        scheduler = {"class": _SCHEDULER, "prediction_type": self.plan.spec.family.predicts}
        found: dict[str, Any] = {"scheduler": scheduler}
        if self._compile is not None:
            found["compile"] = self._compile.record(warmup_calls)
        if self.plan.device == "cuda":
            found["backends"] = backends_record()
        if self._graphs is not None:
            found["cuda_graphs"] = self._graphs.record()
            self._graphs.turn(is_on=False)  # nobody sees the kernels of a replay
        return found | {"attention": self._attention()}

    def close(self) -> None:
        """Free the weights."""
        self._model = None
        free_memory(self.device)

    @torch.no_grad()
    def _run(self, batch: Batch) -> torch.Tensor:
        assert self._model is not None
        self._last = batch
        if self._compile is not None:
            self._compile.begin_call()
        return generate(self._model, batch, self._schedule, self._options, self.device)

    def _attention(self) -> dict[str, Any]:
        """Kernels of each part's first call; the transformer's first scale stands for all."""
        model, batch = self._model, self._last
        known = {
            "asked": self.plan.optimizations.attention,
            "library": "torch",
            "told": None,
            "seen_uncompiled": self.plan.optimizations.compile_mode is not None,
        }
        if batch is None or model is None:
            unseen = {"kernels": None, "in_layers": None, "reason": "nothing was generated"}
            return {**known, **unseen, "layers": 0, "parts": {}}
        layers = attention_layers(model)
        watched = watched_parts(_AsAttributes(model.components), self.plan.spec.family.stages)
        parts = attention_of_parts(watched, layers, lambda: self._run(batch))
        own = parts["transformer"]
        return {
            **known,
            "layers": len(layers),
            "kernels": own.operators,
            "in_layers": own.in_layers,
            "reason": own.reason,
            "parts": {name: seen.record for name, seen in parts.items()},
        }


def attention_layers(model: NextScaleModel) -> list[torch.nn.Module]:
    """Attention layers of the transformer: those of its modules whose class is named so."""
    modules = model.components["transformer"].modules()
    return [module for module in modules if type(module).__name__.endswith("Attention")]


def _checkpoints(files: Mapping[str, Path]) -> list[Path]:
    """The files that hold weights: checkpoints, and those in a component's folder."""
    return [
        file for path in files.values() for file in (component_files(path, None) if path.is_dir() else [path])
    ]


def _rows_of(batch: Batch, rows: slice) -> Batch:
    return replace(
        batch, prompts=batch.prompts[rows], seeds=batch.seeds[rows], class_ids=batch.class_ids[rows]
    )


class _AsAttributes:
    """Components by attribute, as a pipeline of diffusers has them."""

    def __init__(self, components: Mapping[str, torch.nn.Module]) -> None:
        self.__dict__.update(components)
