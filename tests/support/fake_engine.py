"""An engine without a model, for tests of what surrounds the measuring.

As a program it is the benchmark with this engine. EFFECTS_FAIL_ON names the rank whose look at the effects
fails. STALL names a stage in which every rank stays for two minutes; rank 0 makes the file STALLED as that
begins. "window passed" makes the file only. A run that is asked to end has GRACE_S seconds, or one.
Each data-parallel group makes the images of its own rows, each from its seed alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mlenergy.diffusion.engine import Batch, Generated, LoadReport

Effects = Callable[[], dict[str, Any]]


def no_effect() -> dict[str, Any]:
    """The record of a cache that never skipped."""
    return effects(computed_share=1.0)


def effects(computed_share: float = 0.5) -> dict[str, Any]:
    """A record of one rank, with a cache."""
    cache = {"method": "fbcache", "threshold": 0.1, "denoiser_calls": 4, "units": 2}
    return {
        "scheduler": {"class": "Fake", "prediction_type": None},
        "attention": {"asked": "auto", "kernels": None, "reason": "there is no attention"},
        "cache": {**cache, "computed_share": computed_share, "computed_steps_share": None},
    }


def image_of(seed: int) -> torch.Tensor:
    """The image of a seed: (3, 64, 64), in [0, 1)."""
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


class FakeEngine:
    """Images of noise; `effects` does what the test says.

    group, groups: of data parallelism: its place, and how many there are.
    """

    name = "fake"
    device = torch.device("cpu")

    def __init__(self, look: Effects = effects, group: int = 0, groups: int = 1) -> None:
        self.report = LoadReport(0.0)
        self._look = look
        self._calls = 0
        self._group, self._groups = group, groups

    def components(self) -> dict[str, torch.nn.Module]:
        return {}

    def generate(self, batch: Batch) -> Generated:
        self._calls += 1
        stall("warmup" if self._calls == 1 else "window" if self._calls == 3 else "a window")
        rows = len(batch.seeds) // self._groups
        first = self._group * rows
        return Generated(torch.stack([image_of(seed) for seed in batch.seeds[first : first + rows]]), first)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        return self._look()

    def close(self) -> None:
        pass


def stall(stage: str) -> None:
    """Stay here for two minutes, if this is the stage to stay in."""
    if os.environ.get("STALL") not in (stage, f"{stage} passed"):
        return
    if os.environ.get("RANK", "0") == "0":
        Path(os.environ["STALLED"]).touch()
    if os.environ["STALL"] == stage:
        time.sleep(120)


def _stalls_then(stage: str, function: Any) -> Any:
    def then(*arguments: Any, **options: Any) -> Any:
        stall(stage)
        return function(*arguments, **options)

    return then


def _look() -> dict[str, Any]:
    if "EFFECTS_FAIL_ON" in os.environ and os.environ["EFFECTS_FAIL_ON"] == os.environ["RANK"]:
        raise RuntimeError("no room for the extra generation")
    dist.barrier()  # as a collective of the model: never comes back without the other rank
    stall("effects")
    return effects()


def main() -> int:
    """The benchmark, stalling where it is told to."""
    import mlenergy.diffusion.benchmark as benchmark
    from mlenergy.diffusion import run
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.results import save
    from mlenergy.diffusion.supervision import parent, starting, supervise

    starting.answer_signals()
    parent.end_with_launcher()
    supervise.GRACE_S = float(os.environ.get("GRACE_S", "1"))
    Cluster.start = _stalls_then("starting", Cluster.start)  # type: ignore[method-assign]
    save.save_outputs = _stalls_then("saving", save.save_outputs)
    run.load_engine = _stalls_then(
        "loading", lambda plan, cluster: FakeEngine(_look, cluster.rank.rank, plan.parallel.data)
    )
    return benchmark.main()


if __name__ == "__main__":
    sys.exit(main())
