"""The two sides of bench_vs_bare.py, each in a process of its own: bare diffusers, and the benchmark."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import bare_pipeline

from mlenergy.diffusion.errors import UserError

PROMPT, SEED = "a red fox", 7

Window = Callable[[], tuple[float, Any]]  # seconds, and the images


class Side:
    """One process with one loaded pipeline, which does what it is asked."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, list(argv)))
        self._process.start()
        theirs.close()  # so that its death ends our waiting

    def ask(self, what: str) -> Any:
        """`window`: its seconds; `images`: those of one; `work` of one; `graphs` compiled so far.

        Raises:
            UserError: the side cannot be set up.
        """
        self._pipe.send(what)
        answer = self._pipe.recv()
        if isinstance(answer, UserError):
            raise answer
        return answer

    def end(self) -> None:
        """Let the process go."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join()


def _serve(pipe: Any, name: str, argv: list[str]) -> None:
    from mlenergy.diffusion.config.resolve import plan_from

    try:
        _, plan = plan_from(argv, 1, "bench_vs_bare")
        window = {"bare": bare, "ours": ours}[name](plan)
    except UserError as error:
        pipe.recv()
        pipe.send(error)
        return
    while (what := pipe.recv()) is not None:
        pipe.send(answer_to(what, window))


def answer_to(what: str, window: Window) -> Any:
    """The answer of one side to `Side.ask`."""
    if what == "work":
        from work_done import work_of  # imports torch, which the parent does without

        return work_of(window)
    if what == "graphs":
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])
    seconds, images = window()
    return seconds if what == "window" else images.float().cpu().numpy()


def bare(plan: Any) -> Window:
    """Diffusers' own call between two clocks."""
    import torch

    device = torch.device(plan.device)
    pipeline = bare_pipeline.load(plan)

    def window() -> tuple[float, Any]:
        _synchronize(device)
        begin_s = time.perf_counter()
        images = bare_pipeline.call(pipeline, plan, PROMPT, SEED)
        _synchronize(device)
        return time.perf_counter() - begin_s, images

    return window


def ours(plan: Any) -> Window:
    """A measured window of the benchmark."""
    from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
    from mlenergy.diffusion.engine import Batch
    from mlenergy.diffusion.engines import load_engine
    from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
    from mlenergy.diffusion.measure.memory import MemoryWatch
    from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
    from mlenergy.diffusion.measure.stages import StageProbe

    cluster = Cluster.start(read_rank(), plan.device)
    engine = load_engine(plan, cluster)
    meter = build_meter(cluster, None, None, MeterOptions(idle_s=0.0))
    batch, kept = Batch((PROMPT,), (SEED,)), []

    def generate(batch: Batch) -> Any:
        generated = engine.generate(batch)
        kept[:] = [generated.images]
        return generated

    def window() -> tuple[float, Any]:
        components, device = engine.components(), cluster.device
        instruments = Instruments(
            meter,
            StageProbe(components, plan.spec.family.stages, plan.steps, device),
            MemoryWatch(device, components),
        )
        schedule = Schedule(warmup=[], measured=[batch])
        measured, _ = measure(generate, schedule, instruments, cluster, keep_outputs=False)
        assert measured is not None
        return measured.iterations[0].duration_s, kept[0]

    return window


def _synchronize(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
