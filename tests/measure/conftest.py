"""Shared by the tests of the instrument: a cluster of one, a generate that sleeps, tiny components."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driver_double
import forked
import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.outputs import Pixels
from mlenergy.diffusion.measure.samples import Measurement
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe


def make_batch(images: int = 1) -> Batch:
    return Batch(prompts=("a red fox",) * images, seeds=tuple(range(images)))


@pytest.fixture
def alone() -> Cluster:
    """A cluster of one rank, without a process group."""
    return Cluster(Rank(hostname="here"), torch.device("cpu"), None)


@pytest.fixture
def batch() -> Callable[[int], Batch]:
    return make_batch


@pytest.fixture
def measured(alone: Cluster) -> Callable[..., tuple[Measurement, list[Pixels]]]:
    """Measure a generate on a CPU, alone: batches of warm-up and of windows, options of ``measure``."""

    def run(
        generate: Callable[[Batch], Generated],
        warmup: list[Batch],
        batches: list[Batch],
        *,
        probe: StageProbe | None = None,
        stop_rule: Any = None,
        **options: Any,
    ) -> tuple[Measurement, list[Pixels]]:
        meter = build_meter(alone, None, None, MeterOptions())
        instruments = Instruments(meter, probe, MemoryWatch(alone.device, {}))
        found, pixels = measure(generate, Schedule(warmup, batches, stop_rule), instruments, alone, **options)
        assert found is not None
        return found, pixels

    return run


@pytest.fixture
def sleeping() -> Callable[[float], Callable[[Batch], Generated]]:
    """Make a generate that sleeps for so many seconds and gives grey images."""

    def make(seconds: float) -> Callable[[Batch], Generated]:
        def generate(batch: Batch) -> Generated:
            time.sleep(seconds)
            return Generated(torch.full((len(batch.prompts), 3, 4, 6), 0.5))

        return generate

    return make


class Sleeper(torch.nn.Module):
    """A component whose forward sleeps, and keeps how long each call really took."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.spent_s: list[float] = []
        self.weight = torch.nn.Parameter(torch.zeros(10, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter()
        time.sleep(self.seconds)
        self.spent_s.append(time.perf_counter() - begin)
        return x


class Vae(torch.nn.Module):
    """As diffusers' VAEs: decode() is no forward, its parts are."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.post_quant_conv = Sleeper(seconds / 2)
        self.decoder = Sleeper(seconds / 2)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(x))


@pytest.fixture
def pipeline() -> Callable[..., SimpleNamespace]:
    """Make a pipeline of sleeping components: .components and .generate(batch)."""

    def make(
        text_s: float = 0.02,
        step_s: float = 0.03,
        decode_s: float = 0.04,
        other_s: float = 0.0,
        steps: int = 3,
        calls: tuple[int, ...] | None = None,
        scheduler_s: float = 0.0,
    ) -> SimpleNamespace:
        text, denoiser, vae = Sleeper(text_s / 2), Sleeper(step_s), Vae(decode_s)

        def generate(batch: Batch) -> Generated:
            images = torch.full((len(batch.prompts), 3, 4, 6), 0.5)
            text(images), text(images)
            time.sleep(other_s)
            for count in calls or (1,) * steps:
                for _ in range(count):
                    denoiser(images)
                time.sleep(scheduler_s)
            return Generated(vae.decode(images))

        components = {"text_encoder": text, "transformer": denoiser, "vae": vae}
        return SimpleNamespace(components=components, generate=generate)

    return make


@pytest.fixture
def on_double(driver: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Run cases of energy_worker.py on the double and give each one's figures."""

    def run(
        *cases: dict[str, Any], environ: Mapping[str, str] | None = None, **controls: object
    ) -> list[Any]:
        results = tmp_path / "results.json"
        environment = {
            **driver_double.environment(driver, **controls),
            **(environ or {}),
            "CASES": json.dumps(cases),
            "RESULTS": str(results),
            "OMP_NUM_THREADS": "1",
        }
        worker = Path(__file__).parents[1] / "support" / "energy_worker.py"
        done = forked.run(
            [sys.executable, str(worker)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(results.read_text())

    return run
