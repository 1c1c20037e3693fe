"""An engine without a model, for tests of what surrounds the measuring.

As a program it is the benchmark with this engine; EFFECTS_FAIL_ON names the rank whose look at the effects
fails. Each data-parallel group makes the images of its own rows, each from its seed alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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
        self._group, self._groups = group, groups

    def components(self) -> dict[str, torch.nn.Module]:
        return {}

    def generate(self, batch: Batch) -> Generated:
        rows = len(batch.seeds) // self._groups
        first = self._group * rows
        return Generated(torch.stack([image_of(seed) for seed in batch.seeds[first : first + rows]]), first)

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        return self._look()

    def close(self) -> None:
        pass


def _fail_on_one_rank() -> dict[str, Any]:
    if os.environ.get("EFFECTS_FAIL_ON") == os.environ["RANK"]:
        raise RuntimeError("no room for the extra generation")
    dist.barrier()  # as a collective of the model: never comes back without the other rank
    return effects()


if __name__ == "__main__":
    from mlenergy.diffusion import benchmark, run

    run.load_engine = lambda plan, cluster: FakeEngine(
        _fail_on_one_rank, cluster.rank.rank, plan.parallel.data
    )
    sys.exit(benchmark.main())
