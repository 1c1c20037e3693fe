"""One reader's windows, by its counters and by what was sampled, and the sums of many readers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import NodeWindow
from mlenergy.diffusion.measure.energy.curves import CounterRead, Sample, Track
from mlenergy.diffusion.measure.energy.readers import NodeReader
from mlenergy.diffusion.measure.energy.reports import NodeReport, merge, report_node
from mlenergy.diffusion.measure.samples import GpuEnergy
from mlenergy.diffusion.measure.stages import StageSpans

PERIOD_S = 0.1
WINDOWS = ((10.0, 13.0), (14.0, 18.0))
SPANS = [StageSpans({"text_encode": ((0.0, 1.0),), "denoise": ((1.0, 2.5),)}, (1.0,))] * 2
COUNTED, SAMPLED = Gpu(0, "GPU-a", "New"), Gpu(1, "GPU-b", "Old")
WATTS = {"GPU-a": 300.0, "GPU-b": 50.0}


def track(watts, begin_s=9.0, end_s=19.0, counted=True, step_s=PERIOD_S):
    """Constant power, and a counter that moves every period."""
    times_s = [begin_s + step_s * i for i in range(round((end_s - begin_s) / step_s) + 1)]
    reads = [CounterRead(t - 0.001, t, watts * (t - begin_s)) for t in times_s] if counted else []
    return Track(
        counter=reads, samples=[Sample(t, watts, 40 + i, 1500, i % 2) for i, t in enumerate(times_s)]
    )


def reader(**changes):
    """A reader of a GPU with a counter and one without, after two windows."""
    found = NodeReader("node", (), False, 0.1)
    found.gpus = (COUNTED, SAMPLED)
    found.tracks = {"GPU-a": track(WATTS["GPU-a"]), "GPU-b": track(WATTS["GPU-b"], counted=False)}
    windows = [
        NodeWindow(
            *(begin_s, end_s, (GpuEnergy("node", "GPU-a", "New", 300.0 * (end_s - begin_s)),)),
            *(None, None, None, None, ()),
        )
        for begin_s, end_s in WINDOWS
    ]
    found.counters = SimpleNamespace(windows=windows, counted=(COUNTED,))
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def change_window(of, index, **changes):
    of.counters.windows[index] = replace(of.counters.windows[index], **changes)
    return of


def test_a_gpu_with_a_counter_keeps_its_joules_and_another_gets_its_sampled_ones():
    report = report_node(reader(), SPANS)
    for window, (begin_s, end_s) in zip(report.windows, WINDOWS, strict=True):
        of_counter, of_samples = window.gpus
        seconds = end_s - begin_s
        assert (of_counter.uuid, of_counter.source) == ("GPU-a", "nvml_counter")
        assert of_counter.energy_j == 300.0 * seconds
        assert of_counter.sampled_energy_j == pytest.approx(300.0 * seconds)
        assert (of_samples.uuid, of_samples.source, of_samples.name) == ("GPU-b", "sampled_power", "Old")
        assert of_samples.energy_j == of_samples.sampled_energy_j == pytest.approx(50.0 * seconds)
        assert (window.failure, window.marks) == (None, ())
    assert report.counter_period_s == {"GPU-a": pytest.approx(PERIOD_S)}
    assert (report.reads_gpus, report.reads_cpus, report.sample_period_s) == (True, False, 0.1)


def test_a_counters_joules_are_never_replaced_by_the_samples():
    wrong = change_window(reader(), 0, gpus=(GpuEnergy("node", "GPU-a", "New", 7.0),))
    assert report_node(wrong, SPANS).windows[0].gpus[0].energy_j == 7.0


def test_what_is_unknown_of_one_gpu_makes_the_windows_sum_unknown():
    blind = reader()
    blind.tracks["GPU-b"] = track(50.0, begin_s=12.0, counted=False)
    first, second = report_node(blind, SPANS).windows
    assert first.gpus == ()
    assert first.failure == "GPU 1 (GPU-b) gave no energy: no power samples cover the window"
    assert len(second.gpus) == 2 and second.failure is None
    blind.sampler_failure = "the sampling process ended"
    assert report_node(blind, SPANS).windows[0].failure.endswith("gave no energy: the sampling process ended")
    report = report_node(blind, SPANS)
    assert report.stages == {} and report.stage_reason == report.windows[0].failure


@pytest.mark.parametrize(
    ("energy_j", "words"),
    [(-1.0, "went backwards inside the window"), (0.0, "stood still over the window")],
)
def test_a_counter_that_cannot_be_right_gives_no_joules(energy_j, words):
    wrong = change_window(reader(), 1, gpus=(GpuEnergy("node", "GPU-a", "New", energy_j),))
    first, second = report_node(wrong, SPANS).windows
    assert len(first.gpus) == 2 and second.gpus == ()
    assert second.failure == f"the energy counter of GPU 0 (GPU-a) {words}"
    assert len(second.marks) == 1


def test_a_reset_of_the_counter_marks_the_window_that_it_lies_in():
    reset = reader()
    reads = [replace(r, energy_j=r.energy_j - 1500) if r.read_s > 12 else r for r in track(300.0).counter]
    reset.tracks["GPU-a"] = replace(reset.tracks["GPU-a"], counter=reads)
    first, second = report_node(reset, SPANS).windows
    assert first.marks == ("counter_backwards",) and first.gpus == ()
    assert second.marks == () and len(second.gpus) == 2


def test_a_failure_of_the_counters_is_kept_with_its_marks():
    failed = change_window(reader(), 0, gpus=(), failure="GPU is lost", marks=("counter_unreadable",))
    first, _ = report_node(failed, SPANS).windows
    assert (first.gpus, first.failure, first.marks) == ((), "GPU is lost", ("counter_unreadable",))


def test_rows_of_the_timeline_count_from_the_first_window_and_know_their_own():
    rows = report_node(reader(), SPANS).timeline
    assert {(row[0], row[1]) for row in rows} == {("node", "GPU-a"), ("node", "GPU-b")}
    of_a = [row for row in rows if row[1] == "GPU-a"]
    assert [row[2] for row in of_a] == pytest.approx([-1 + i * PERIOD_S for i in range(101)])
    assert [row[3:7] for row in of_a[:2]] == [(300.0, 40, 1500, 0), (300.0, 41, 1500, 1)]
    for row in rows:
        time_s, window = row[2], row[7]
        inside = [i for i, (begin_s, end_s) in enumerate(WINDOWS) if begin_s <= time_s + 10.0 <= end_s]
        near = min(abs(time_s + 10.0 - edge) for edges in WINDOWS for edge in edges)
        assert near < 1e-6 or [window] == (inside or [None])


def test_the_runs_timeline_holds_all_rows_column_by_column():
    one, other = report_node(reader(), SPANS), replace(report_node(reader(node="other"), SPANS), timeline=())
    other = replace(other, sample_period_s=0.5, timeline=(("other", "GPU-z", 7.0, None, 1, 2, 3, None),))
    line = merge([one, other], None, 2).timeline
    names = ("node", "uuid", "time_s", "power_w", "temperature_c", "sm_clock_mhz", "event_reasons", "window")
    assert list(zip(*(getattr(line, name) for name in names), strict=True)) == [
        *one.timeline,
        *other.timeline,
    ]
    assert line.period_s == 0.5
    assert merge([replace(one, timeline=())], None, 2).timeline is None


def test_only_readers_of_gpus_have_a_reason_for_missing_stages():
    one, cpus = report_node(reader(), SPANS), replace(report_node(reader(), []), node="b", reads_gpus=False)
    energy = merge([one, replace(cpus, windows=one.windows)], None, 2)
    assert energy.stage_reason is None and energy.stages
    assert merge([one], "no driver", 2).stage_reason == "no driver"


def test_stages_follow_the_counter_where_there_is_one():
    of_half = reader()
    of_half.tracks["GPU-a"] = replace(track(150.0), samples=track(300.0).samples)
    assert report_node(of_half, SPANS).stages["GPU-a"].energy_j["text_encode"] == pytest.approx(
        150.0, rel=0.02
    )


def test_stages_are_of_both_kinds_of_gpu():
    report = report_node(reader(), SPANS)
    assert report.stage_reason is None
    for uuid, watts in WATTS.items():
        energy_j = report.stages[uuid].energy_j
        assert energy_j["text_encode"] == pytest.approx(watts * 1.0, rel=0.02)
        assert energy_j["denoise"] == pytest.approx(watts * 1.5, rel=0.02)
        assert energy_j["other"] == pytest.approx(watts * (3.5 - 2.5), rel=0.05)  # windows of 3 and 4 s


@pytest.mark.parametrize("spans", [[], SPANS[:1], [SPANS[0], None]])
def test_without_every_windows_stages_there_are_none(spans):
    report = report_node(reader(), spans)
    assert report.stages == {} and report.stage_reason.startswith("no stage times")


def test_a_gpu_that_was_sampled_too_seldom_has_no_stages():
    seldom = reader()
    seldom.tracks["GPU-a"] = replace(seldom.tracks["GPU-a"], counter=[])
    report = report_node(seldom, SPANS)
    assert report.stages == {}
    assert report.stage_reason == "GPU 0's energy was sampled too seldom over the windows: measure longer"


JOULES = st.floats(0.1, 1e6)


@st.composite
def readers_of_a_run(draw):
    """Reports of up to six readers on three nodes, and what is known of them."""
    reports, windows, uuid = [], draw(st.integers(1, 3)), 0
    for _ in range(draw(st.integers(1, 6))):
        node, count = draw(st.sampled_from("abc")), draw(st.integers(0, 3))
        reads_cpus = node not in {report.node for report in reports if report.reads_cpus}
        names = [f"GPU-{uuid + i}" for i in range(count)]
        uuid += count
        own = tuple(
            NodeWindow(
                *(0.0, 1.0, tuple(GpuEnergy(node, name, "Double", draw(JOULES)) for name in names), None),
                *((draw(JOULES), draw(JOULES)) if reads_cpus else (None, None)),
                *(None, ()),
            )
            for _ in range(windows)
        )
        reports.append(NodeReport(node, own, 0.1, reads_gpus=count > 0, reads_cpus=reads_cpus))
    return reports, windows


@given(readers_of_a_run())
def test_the_runs_joules_are_all_gpus_of_all_readers_each_window_on_its_own(run):
    reports, count = run
    energy = merge(reports, None, count)
    assert len(energy.windows) == count
    for index, window in enumerate(energy.windows):
        parts = [report.windows[index] for report in reports]
        of_gpu = {gpu.uuid: gpu.energy_j for part in parts for gpu in part.gpus}
        assert {gpu.uuid: gpu.energy_j for gpu in window.gpus} == of_gpu
        assert window.gpu_energy_j == pytest.approx(sum(of_gpu.values()))
        assert window.cpu_package_j == pytest.approx(sum(part.cpu_package_j or 0.0 for part in parts))
        assert window.dram_j == pytest.approx(sum(part.dram_j or 0.0 for part in parts))
        assert {node.node for node in window.nodes} == {report.node for report in reports}
        for node in window.nodes:
            own = [gpu.energy_j for part in parts for gpu in part.gpus if gpu.node == node.node]
            assert (node.gpu_energy_j is None) == (not own)
            assert not own or node.gpu_energy_j == pytest.approx(sum(own))


@given(readers_of_a_run(), st.data())
def test_one_failure_anywhere_makes_its_window_unknown_and_no_other(run, data):
    reports, count = run
    broken = data.draw(st.integers(0, len(reports) - 1))
    at = data.draw(st.integers(0, count - 1))
    windows = list(reports[broken].windows)
    windows[at] = replace(windows[at], gpus=(), failure="lost", marks=("x",))
    reports[broken] = replace(reports[broken], windows=tuple(windows))
    for index, window in enumerate(merge(reports, None, count).windows):
        assert (window.gpu_energy_j is None) == (index == at)
        assert (window.source, window.reason) == (("none", "lost") if index == at else ("nvml_counter", None))
        assert window.marks == (("x",) if index == at else ())
        assert all(node.gpu_energy_j is None for node in window.nodes if index == at)
