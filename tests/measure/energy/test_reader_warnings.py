"""One reader's doubts about a whole run: which windows, which GPU, and by how much."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import NodeWindow
from mlenergy.diffusion.measure.energy.curves import Sample, Track
from mlenergy.diffusion.measure.energy.readers import NodeReader
from mlenergy.diffusion.measure.energy.warnings import reader_warnings
from mlenergy.diffusion.measure.samples import GpuEnergy, Sampling

A, B, OLD = Gpu(0, "GPU-a", "New"), Gpu(1, "GPU-b", "New"), Gpu(2, "GPU-c", "Old")


def reader(*gpus, period_s=0.1, periods=None, events=(0,)):
    found = NodeReader("node", (), False, period_s)
    found.gpus = gpus
    found.counters = SimpleNamespace(counted=tuple(gpu for gpu in gpus if gpu.name == "New"))
    samples = [Sample(float(t), 100.0, 40, 1500, bits) for t, bits in enumerate(events)]
    found.tracks = {gpu.uuid: Track(samples=samples) for gpu in gpus}
    found.counter_period_s = lambda gpu: (periods or {}).get(gpu.uuid)
    return found


def window(*marks, seconds=10.0, failure=None, **joules):
    """Joules by GPU: (counted, sampled)."""
    gpus = tuple(
        GpuEnergy("node", f"GPU-{name}", "New", counted, sampled_energy_j=sampled)
        for name, (counted, sampled) in joules.items()
    )
    return NodeWindow(0.0, seconds, gpus, failure, None, None, None, marks)


def told(of, *windows):
    return {warning.code: warning.message for warning in reader_warnings(of, windows)}


def test_a_clean_run_has_no_warning():
    assert told(reader(A), window(a=(100.0, 101.0))) == {}


def test_each_kind_is_told_once_with_how_many_windows():
    found = told(reader(A), window("power_cap"), window("power_cap", "cpu_counter"), window())
    assert found["power_cap"] == "the power limit held the clocks down: 2 of 3 windows on node"
    assert found["cpu_counter"].startswith(
        "a CPU energy counter could not be trusted: 1 of 3 windows on node"
    )
    assert list(found) == ["cpu_counter", "power_cap"]


def test_reasons_stand_behind_their_kind():
    hot = told(reader(A, B, events=(0, 0x40, 0x8, None)), window("throttle"))
    assert hot["throttle"].endswith("1 of 1 windows on node (hardware slowdown, hardware thermal slowdown)")
    lost = [window("counter_unreadable"), window("counter_unreadable", failure="GPU 0 is lost")]
    assert told(reader(A), *lost)["counter_unreadable"].endswith("2 of 2 windows on node (GPU 0 is lost)")
    assert told(reader(A), lost[0])["counter_unreadable"].endswith("(while sampling)")
    wrapped = replace(window("cpu_counter"), cpu_reason="it wrapped")
    assert told(reader(A), replace(window(), cpu_reason="-"), wrapped)["cpu_counter"].endswith("(it wrapped)")


def test_short_windows_name_the_longest_period():
    found = told(reader(A, B, periods={"GPU-a": 0.02, "GPU-b": 0.1}), window("short_window"))
    assert "(period 0.100 s): energy is coarse" in found["short_window"]


def test_a_sampler_that_failed_is_told():
    failed = reader(A)
    failed.sampler_failure = "it ended"
    assert told(failed, window())["no_timeline"] == "node: it ended"


def test_gpus_without_a_counter_are_named_with_the_period():
    found = told(reader(A, OLD, period_s=0.05), window())
    assert found["sampled_power"] == (
        "no energy counter on GPU 2 (Old) of node: energy is sampled power, "
        "read every 0.05 s and held in between"
    )


def test_a_period_is_told_as_widened_only_where_it_is():
    slow = reader(A, B)
    slow.sampling = Sampling(0.1, 0.4, 0.02, 0.0201, 2)
    assert told(slow, window()) == {
        "period_widened": "reading 2 GPUs of node takes 20.1 ms: sampled every 0.4 s instead of every 0.1 s"
    }
    slow.sampling = replace(slow.sampling, read_s=None)
    assert "of node takes long: sampled every 0.4 s" in told(slow, window())["period_widened"]
    slow.sampling = replace(slow.sampling, period_s=0.1)
    assert told(slow, window()) == {}


@pytest.mark.parametrize(
    ("counted", "sampled", "text"),
    [
        (100.0, 110.0, "+10.0%"),
        (100.0, 90.0, "-10.0%"),
        (100.0, 104.9, None),
        (100.0, 95.1, None),
        (0.0, 5.0, None),
    ],
)
def test_sampled_power_is_held_against_the_counter(counted, sampled, text):
    found = told(reader(A), window(a=(counted, sampled)))
    message = "GPU 0 of node: the integral of sampled power differs from the energy counter by "
    assert found == ({} if text is None else {"power_mismatch": message + text})


def test_the_cross_check_is_over_all_windows_of_one_gpu():
    # +30 % and -30 % of as many joules even out; another GPU's joules have no part in it.
    windows = [window(a=(100.0, 130.0), b=(100.0, 100.0)), window(a=(100.0, 70.0), b=(100.0, 100.0))]
    assert told(reader(A, B), *windows) == {}
    windows = [window(a=(100.0, 100.0), b=(100.0, 120.0)), window(a=(100.0, None), b=(300.0, 360.0))]
    assert told(reader(A, B), *windows)["power_mismatch"].startswith("GPU 1 of node")
    assert len(reader_warnings(reader(A, B), windows)) == 1


@pytest.mark.parametrize(("seconds", "accused"), [(1.99, False), (2.0, True)])
def test_fewer_than_twenty_samples_accuse_no_counter(seconds, accused):
    found = told(reader(A, period_s=0.1), window(seconds=seconds, a=(100.0, 200.0)))
    assert ("power_mismatch" in found) is accused
    half = [window(seconds=seconds / 2, a=(50.0, 100.0))] * 2
    assert ("power_mismatch" in told(reader(A, period_s=0.1), *half)) is accused
