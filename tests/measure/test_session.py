"""Windows, warm-up and images, on callables whose length is known."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Generated
from mlenergy.diffusion.measure.energy.meter import Meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe, StageSpans
from mlenergy.diffusion.measure.statistics import StopRule
from mlenergy.diffusion.models.families import FLUX


def test_duration_agrees_with_an_outside_stopwatch(batch, measured):
    outside: list[float] = []

    def generate(_batch):
        begin = time.perf_counter()
        time.sleep(0.4)
        outside.append(time.perf_counter() - begin)
        return Generated(torch.zeros(1, 3, 2, 2))

    found, _ = measured(generate, [], [batch(1)] * 5)
    over = [i.duration_s / stopwatch_s - 1 for i, stopwatch_s in zip(found.iterations, outside, strict=True)]
    assert min(over) >= 0
    # A busy machine may take the core away between the two clocks once or twice, not every time.
    assert sorted(over)[2] < 0.005


def test_exactly_as_many_windows_as_batches_and_warm_up_kept_apart(batch, sleeping, measured):
    told = []
    found, images = measured(
        sleeping(0.01),
        [batch(2)] * 2,
        [batch(2)] * 3,
        on_iteration=lambda kind, index, _s: told.append((kind, index)),
    )
    assert told == [("warmup", 0), ("warmup", 1), ("measured", 0), ("measured", 1), ("measured", 2)]
    assert len(found.iterations) == 3 and len(found.warmup_s) == 2
    assert found.first_call_s == found.warmup_s[0]
    assert [iteration.images for iteration in found.iterations] == [2, 2, 2]
    assert [pixels.shape for pixels in images] == [(2, 4, 6, 3)] * 3
    assert images[0].dtype == np.uint8 and images[0].max() == images[0].min() == 128


def test_counters_are_read_around_windows_alone(alone, batch, sleeping):
    reads = []

    class CountingMeter(Meter):
        def begin(self):
            reads.append("begin")

        def end(self):
            reads.append("end")

    instruments = Instruments(CountingMeter(alone, None), None, MemoryWatch(alone.device, {}))
    schedule = Schedule(warmup=[batch(1)] * 3, measured=[batch(1)] * 2)
    measure(sleeping(0.0), schedule, instruments, alone)
    assert reads == ["begin", "end"] * 2


class ASecondRank(Cluster):
    """Rank 0 beside another one, which says of its stages what the test wants it to say."""

    def __init__(self, **changes):
        super().__init__(Rank(hostname="here"), torch.device("cpu"), None)
        self.changes = changes

    def all_gather_object(self, value):
        windows = tuple(replace(window, **self.changes) for window in value.windows)
        return [value, replace(value, windows=windows, memory=replace(value.memory, rank=1))]


@pytest.mark.parametrize(("holds_output", "denoise_s"), [(True, 7.0), (False, 1.0)])
def test_stages_are_those_of_the_busiest_rank_that_holds_output(pipeline, batch, holds_output, denoise_s):
    spans = StageSpans({"denoise": ((1.0, 8.0),)}, (1.0, 4.0))
    cluster = ASecondRank(spans=spans, holds_output=holds_output, duration_s=99.0)
    tiny = pipeline(text_s=0, step_s=0.5, decode_s=0, steps=2)
    instruments = Instruments(
        Meter(cluster, None),
        StageProbe(tiny.components, FLUX.stages, 2, cluster.device),
        MemoryWatch(cluster.device, {}),
    )
    found, _ = measure(tiny.generate, Schedule([], [batch(1)]), instruments, cluster)
    (iteration,) = found.iterations
    assert iteration.stages.denoise_s == pytest.approx(denoise_s, abs=0.3)
    assert iteration.duration_s < 10  # rank 0's clock
    assert [memory.rank for memory in found.memory] == [0, 1]


def test_without_warm_up_there_is_no_first_call(batch, sleeping, measured):
    found, _ = measured(sleeping(0.0), [], [batch(1)])
    assert found.first_call_s is None and found.warmup_s == ()


def test_images_are_not_kept_but_the_window_is_the_same(batch, sleeping, measured):
    found, images = measured(sleeping(0.0), [], [batch(1)], keep_outputs=False)
    assert images == [] and len(found.iterations) == 1


def test_stop_rule_ends_early_and_never_before_its_least(batch, sleeping, measured):
    rule = StopRule(target=0.5, least=3, most=50)
    found, _ = measured(sleeping(0.02), [], [batch(1)] * 50, stop_rule=rule)
    assert len(found.iterations) == 3


def test_stop_rule_goes_on_while_the_interval_is_wide(batch, measured):
    naps = iter([0.01, 0.05] * 4)

    def generate(_batch):
        time.sleep(next(naps))
        return Generated(torch.zeros(1, 3, 2, 2))

    rule = StopRule(target=0.01, least=3, most=50)
    found, _ = measured(generate, [], [batch(1)] * 8, stop_rule=rule)
    assert len(found.iterations) == 8


def test_a_run_on_a_cpu_has_no_gpu_energy_and_says_so(batch, sleeping, measured):
    found, _ = measured(sleeping(0.0), [], [batch(1)])
    energy = found.iterations[0].energy
    assert energy.source == "none" and energy.gpu_energy_j is None
    assert energy.reason == "no GPU takes part in this run"
    assert found.iterations[0].energy_above_idle_j is None
    assert found.timeline is None and found.stage_energy == ()


def test_broken_images_are_told(batch, measured):
    def generate(_batch):
        return Generated(torch.full((1, 3, 2, 2), float("nan")))

    found, images = measured(generate, [], [batch(1)])
    assert [warning.code for warning in found.warnings] == ["images_not_finite"]
    assert images[0].max() == 0
