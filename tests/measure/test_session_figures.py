"""A measurement on a clock, a meter and ranks of the test's: calls in their order, figures in their place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.measure import outputs, stages, window
from mlenergy.diffusion.measure.energy.reports import RunEnergy
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.samples import (
    GpuEnergy,
    MeasurementWarning,
    NodeEnergy,
    StageEnergy,
    WindowEnergy,
)
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe, StageSpans, stage_times
from mlenergy.diffusion.models.families import FLUX

CPU = torch.device("cpu")
IMAGE = torch.full((1, 3, 2, 2), 0.5)


class Bench:
    """Rank 0 beside other ranks. Time passes where the test says, and nowhere else."""

    def __init__(self, monkeypatch) -> None:
        self.now_s, self.calls = 100.0, []
        self.others: list = []  # makes another rank's result of rank 0's
        self.pixels_of_others: list = []
        self.says_stop = lambda own: own  # rank 0's answer, as it comes back
        self.meter = Meter(self)
        self.rank, self.device = Rank(), CPU
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        for module in (window, stages, outputs):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(window, "synchronize", lambda _device: self.calls.append("synchronize"))

    def barrier(self):
        self.calls.append("barrier")

    def broadcast_object(self, value):
        self.calls.append("broadcast")
        return self.says_stop(value)

    def gather_object(self, value):
        self.calls.append("gather pixels")
        return [value, *self.pixels_of_others]

    def all_gather_object(self, value):
        self.calls.append("gather results")
        return [value, *(other(value) for other in self.others)]

    def generate(self, batch: Batch) -> Generated:
        self.calls.append(f"generate {batch.prompts[0]}")
        self.now_s += float(batch.seeds[0])
        return Generated(IMAGE.repeat(len(batch.prompts), 1, 1, 1))

    def measure(self, measured, warmup=(), generate=None, probe=None, memory=None, rule=None, **options):
        """Windows of so many seconds each, by name."""
        schedule = Schedule(
            [Batch((f"warm {i}",), (s,)) for i, s in enumerate(warmup)],
            [Batch((f"window {i}",), (s,)) for i, s in enumerate(measured)],
            rule,
        )
        instruments = Instruments(self.meter, probe, memory or MemoryWatch(CPU, {}))
        found, images = measure(generate or self.generate, schedule, instruments, self, **options)
        return found, images


class Meter:
    """A meter that counts 1000, 2000, ... J in its windows, and keeps its calls."""

    def __init__(self, bench) -> None:
        self.idle_power_w, self.power_limit_w = {"GPU-a": 10.0}, {"GPU-a": 300.0}
        self.stages = (StageEnergy("text_encode", 5.0, {}, False), StageEnergy("denoise", 90.0, {}, False))
        self.warnings = (MeasurementWarning("of the meter", ""),)
        for name in ("start", "begin", "end", "stop", "close"):
            setattr(self, name, lambda name=name: bench.calls.append(f"meter {name}"))
        self.bench = bench

    def collect(self, spans) -> RunEnergy:
        self.spans = spans
        self.bench.calls.append("meter collect")
        readings = (
            WindowEnergy(
                *(
                    "nvml_counter",
                    None,
                    (GpuEnergy("n", "GPU-a", "x", 1000.0 * (i + 1)),),
                    (NodeEnergy("n", 1.0),),
                )
            )
            for i in range(len(spans))
        )
        return RunEnergy(tuple(readings), self.warnings, self.stages, None, {"GPU-a": 0.1})


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def codes(found):
    return [warning.code for warning in found.warnings]


def test_everything_happens_in_its_order_and_nothing_but_the_work_inside_a_window(bench):
    memory = SimpleNamespace(
        begin_window=lambda: bench.calls.append("memory begin"),
        end_window=lambda: bench.calls.append("memory end"),
        report=lambda rank: bench.calls.append(f"memory of {rank}"),
    )
    rule = SimpleNamespace(is_met=lambda durations_s: bench.calls.append(f"rule {durations_s}"))
    bench.measure(
        [2, 3],
        warmup=[5],
        memory=memory,
        rule=rule,
        on_iteration=lambda kind, index, seconds: bench.calls.append(f"told {kind} {index} {seconds}"),
    )
    meet = ["synchronize", "barrier"]

    def one_window(index, durations_s):
        return [
            *(
                "memory begin",
                *meet,
                "meter begin",
                f"generate window {index}",
                *meet,
                "meter end",
                "memory end",
            ),
            *(
                "gather pixels",
                f"told measured {index} {durations_s[-1]}",
                f"rule {durations_s}",
                "broadcast",
            ),
        ]

    assert bench.calls == [
        *(*meet, "generate warm 0", *meet, "told warmup 0 5.0", "meter start"),
        *one_window(0, [2.0]),
        *one_window(1, [2.0, 3.0]),
        *("meter stop", "meter close", "memory of 0", "gather results", "meter collect"),
    ]


def test_each_window_has_its_own_seconds_joules_and_idle_share(bench):
    found, _ = bench.measure([2, 5], warmup=[7, 4])
    assert (found.first_call_s, found.warmup_s) == (7.0, (7.0, 4.0))
    assert [one.index for one in found.iterations] == [0, 1]
    assert [one.duration_s for one in found.iterations] == [2.0, 5.0]
    assert [one.energy.gpu_energy_j for one in found.iterations] == [1000.0, 2000.0]
    assert [one.energy_above_idle_j for one in found.iterations] == [1000.0 - 20.0, 2000.0 - 50.0]
    assert found.idle_power_w == {"GPU-a": 10.0} and found.power_limit_w == {"GPU-a": 300.0}
    assert found.counter_period_s == {"GPU-a": 0.1}


def test_the_number_of_images_is_that_of_each_batch(bench):
    batches = [Batch(("a",) * count, (1,) * count) for count in (1, 3, 2)]
    instruments = Instruments(bench.meter, None, MemoryWatch(CPU, {}))
    found, images = measure(bench.generate, Schedule([], batches), instruments, bench)
    assert [one.images for one in found.iterations] == [1, 3, 2] == [len(pixels) for pixels in images]


@pytest.mark.parametrize(("own", "rank_0", "windows"), [(False, True, 1), (True, False, 3), (True, True, 1)])
def test_rank_0_decides_for_all_ranks_when_it_is_enough(bench, own, rank_0, windows):
    bench.says_stop = lambda _own: rank_0
    found, _ = bench.measure([1, 1, 1], rule=SimpleNamespace(is_met=lambda _durations_s: own))
    assert len(found.iterations) == windows == len(bench.meter.spans)


@pytest.mark.parametrize("where", ["warm 0", "window 0", "window 1"])
def test_whatever_fails_ends_the_sampling_and_takes_the_hooks_out(bench, where):
    denoiser = torch.nn.Identity()

    def generate(batch):
        if batch.prompts[0] == where:
            raise RuntimeError("a kernel failed")
        return bench.generate(batch)

    probe = StageProbe({"transformer": denoiser}, FLUX.stages, 1, CPU)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        bench.measure([1, 1], warmup=[1], generate=generate, probe=probe)
    assert bench.calls[-1] == "meter close" and "gather results" not in bench.calls
    assert not denoiser._forward_hooks and not denoiser._forward_pre_hooks


class Pipeline:
    """Components whose calls take the seconds that the test says."""

    def __init__(
        self, bench, text=1.0, gap=0.0, step=2.0, after=0.0, decode=4.0, late=0.0, decodes=1
    ) -> None:
        self.bench = bench
        self.parts = {name: torch.nn.Identity() for name in ("text_encoder", "transformer")}
        self.decoder = torch.nn.Identity()
        self.parts["vae"] = torch.nn.Sequential()
        self.parts["vae"].add_module("decoder", self.decoder)
        for module, seconds in ((self.parts["text_encoder"], text), (self.parts["transformer"], step)):
            module.forward = self.slow(seconds)
        self.decoder.forward = self.slow(decode)
        self.gap, self.after, self.late, self.decodes = gap, after, late, decodes

    def slow(self, seconds):
        def forward(x):
            self.bench.now_s += seconds
            return x

        return forward

    def generate(self, batch):
        self.parts["text_encoder"](IMAGE), self.parts["text_encoder"](IMAGE)
        self.bench.now_s += self.gap
        for _ in range(3):
            self.parts["transformer"](IMAGE)
            self.bench.now_s += self.after
        for _ in range(self.decodes):
            self.decoder(IMAGE)
            self.bench.now_s += 0.25
        self.bench.now_s += self.late - 0.25
        return Generated(IMAGE)

    def probe(self):
        return StageProbe(self.parts, FLUX.stages, 3, CPU)


def test_stages_are_their_own_seconds_in_every_window(bench):
    pipeline = Pipeline(bench, gap=0.5, after=0.125, late=0.0625, decodes=2)
    found, _ = bench.measure([0, 0], warmup=[0], generate=pipeline.generate, probe=pipeline.probe())
    for iteration in found.iterations:
        times = iteration.stages
        assert (times.text_encode_s, times.denoise_s) == (2.0, 3 * 2.125)
        assert times.denoise_step_s == (2.125, 2.125, 2.125)
        assert times.vae_decode_s == 2 * 4.0 + 0.25, "from the first of several calls to the end of the last"
        assert times.other_s == pytest.approx(0.5 + 0.0625)
        assert iteration.duration_s == pytest.approx(2 + 0.5 + 6.375 + 8.25 + 0.0625)
    assert bench.meter.spans[1].intervals["text_encode"] == ((0.0, 1.0), (1.0, 2.0))


def test_what_a_vae_does_with_its_tiles_is_decoding(bench):
    """Tiles are blended after the decoder's last call, inside of the VAE's decode."""
    pipeline = Pipeline(bench)
    vae = pipeline.parts["vae"]

    def decode(x):
        for _ in range(3):
            pipeline.decoder(x)
        bench.now_s += 1.5  # blending
        return x

    def generate(batch):
        pipeline.parts["text_encoder"](IMAGE)
        for _ in range(3):
            pipeline.parts["transformer"](IMAGE)
        vae.decode(IMAGE)
        bench.now_s += 0.25
        return Generated(IMAGE)

    vae.decode = decode
    found, _ = bench.measure([0, 0], generate=generate, probe=pipeline.probe())
    for iteration in found.iterations:
        assert iteration.stages.vae_decode_s == pytest.approx(3 * 4.0 + 1.5)
        assert iteration.stages.other_s == pytest.approx(0.25)
    assert vae.decode is decode and not pipeline.decoder._forward_hooks


def test_joules_of_a_step_are_the_denoising_ones_over_the_steps(bench):
    pipeline = Pipeline(bench)
    found, _ = bench.measure([0], generate=pipeline.generate, probe=pipeline.probe())
    assert [(one.stage, one.energy_per_step_j) for one in found.stage_energy] == [
        ("text_encode", None),
        ("denoise", 90.0 / 3),
    ]
    without, _ = bench.measure([1])
    assert [one.energy_per_step_j for one in without.stage_energy] == [None, None]


@pytest.mark.parametrize(("late", "told"), [(0.0, False), (0.48, False), (0.5, True)])
def test_time_in_no_stage_is_told_above_a_fiftieth_of_all_windows(bench, late, told):
    # Windows of 12 s, the second with `late` more: 0.48 s are less than 2 % of both, and more of its own.
    pipeline, waits = Pipeline(bench), iter([0.0, late])

    def generate(batch):
        pipeline.late = next(waits)
        return pipeline.generate(batch)

    found, _ = bench.measure([0, 0], generate=generate, probe=pipeline.probe())
    assert ("other_time" in codes(found)) is told
    assert not told or any(f"{0.5 / 24.5:.1%} of the windows" in one.message for one in found.warnings)


def of_another_rank(**changes):
    """Rank 1's result: rank 0's windows with other figures."""

    def make(own):
        windows = tuple(replace(one, **changes) for one in own.windows)
        return replace(own, windows=windows, memory=replace(own.memory, rank=1))

    return make


def test_a_broken_image_of_any_rank_and_window_is_told(bench):
    bench.others = [of_another_rank(finite=False), of_another_rank()]
    found, _ = bench.measure([1, 1])
    assert "images_not_finite" in codes(found)
    bench.others = [of_another_rank()]
    assert "images_not_finite" not in codes(bench.measure([1, 1])[0])


def test_the_meters_warnings_and_all_ranks_memory_are_kept(bench):
    bench.others = [of_another_rank(), of_another_rank()]
    found, _ = bench.measure([1])
    assert codes(found) == ["of the meter"]
    assert [one.rank for one in found.memory] == [0, 1, 1]


@pytest.mark.parametrize(
    ("holds", "busy_s", "chosen"),
    [((True, False), (1.0, 9.0), 0), ((False, True), (9.0, 1.0), 1), ((True, True), (1.0, 9.0), 1)],
)
def test_stages_are_those_of_the_busiest_rank_that_holds_the_images(bench, holds, busy_s, chosen):
    spans = [StageSpans({"denoise": ((0.0, seconds),)}, (0.0,)) for seconds in busy_s]
    as_rank = [of_another_rank(spans=spans[i], holds_output=holds[i], duration_s=50.0 * i) for i in (0, 1)]
    bench.all_gather_object = lambda own: [
        replace(
            as_rank[0](own),
            memory=own.memory,
            windows=tuple(replace(one, duration_s=20.0) for one in as_rank[0](own).windows),
        ),
        as_rank[1](own),
    ]
    found, _ = bench.measure([1])
    (iteration,) = found.iterations
    assert iteration.stages.denoise_s == busy_s[chosen]
    assert (iteration.duration_s, iteration.stages.other_s) == (20.0, 20.0 - busy_s[chosen])
    assert bench.meter.spans == [spans[chosen]]


def test_steps_that_one_window_does_not_know_are_told(bench):
    known = StageSpans({"denoise": ((0.0, 1.0),)}, (0.0,))
    unknown = StageSpans({"denoise": ((0.0, 1.0),)}, None, "5 calls")

    def other(own):
        windows = (replace(own.windows[0], spans=known), replace(own.windows[1], spans=unknown))
        return replace(own, windows=windows, memory=own.memory)

    bench.all_gather_object = lambda own: [other(own)]
    found, _ = bench.measure([1, 1])
    assert "no time of single steps: 5 calls" in [one.message for one in found.warnings]


def test_a_rank_other_than_0_gives_no_measurement(bench):
    bench.meter.collect = lambda _spans: None
    assert bench.measure([1])[0] is None


def test_marks_of_events_are_in_seconds_from_the_origin():
    class Event:
        def __init__(self, at_ms):
            self.at_ms, self.recorded = at_ms, False

        def record(self):
            self.recorded = True

        def elapsed_time(self, later):  # as torch's: milliseconds from this event to the other one
            return later.at_ms - self.at_ms

    first, second = stages._EventMark(Event(1500.0)), stages._EventMark(Event(4000.0))
    assert first._event.recorded and second.since(first) == 2.5


@pytest.mark.parametrize(("kind", "module"), [("cuda", torch.cuda), ("mps", torch.mps)])
def test_a_gpu_is_timed_by_its_own_events(monkeypatch, kind, module):
    made = []
    monkeypatch.setattr(
        *(module, "Event"),
        lambda enable_timing: made.append(enable_timing) or SimpleNamespace(record=lambda: None),
    )
    assert isinstance(stages._mark_maker(torch.device(kind))(), stages._EventMark)
    assert made == [True]
    assert stages._mark_maker(CPU) is stages._HostMark


def test_stage_times_sum_to_the_window_whatever_the_steps():
    spans = StageSpans(
        {"text_encode": ((0.0, 1.0), (1.5, 2.0)), "denoise": ((2.0, 8.0),), "vae_decode": ((8.0, 9.5),)},
        (2.0, 3.0, 6.5),
    )
    times = stage_times(spans, 10.0, 0.75)
    assert times.denoise_step_s == (1.0, 3.5, 1.5)
    assert (times.text_encode_s, times.denoise_s, times.vae_decode_s) == (1.5, 6.0, 1.5)
    assert (times.other_s, times.postprocess_s) == (1.0, 0.75)
