"""Several readers' windows as the run's: every joule once, and half a sum never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlenergy.diffusion.measure.energy.counters import NodeWindow
from mlenergy.diffusion.measure.energy.reports import NodeReport, merge
from mlenergy.diffusion.measure.energy.stages import GpuStages
from mlenergy.diffusion.measure.samples import GpuEnergy, MeasurementWarning, Sampling


def window(node, cpu_j=None, **joules):
    gpus = tuple(GpuEnergy(node, uuid, "Double", energy_j) for uuid, energy_j in joules.items())
    return NodeWindow(1.0, 2.0, gpus, None, cpu_j, None, None if cpu_j else "no RAPL", ())


def report(node, *windows, cpus=False, **more):
    return NodeReport(node, windows, 0.1, reads_gpus=True, reads_cpus=cpus, **more)


LEFT = report("left", window("left", 7.0, a=10.0), cpus=True, counter_period_s={"a": 0.1})
RIGHT = report("right", window("right", b=20.0, c=30.0), counter_period_s={"b": 0.02})


def test_nodes_sum_to_the_run():
    energy = merge([LEFT, RIGHT], None, 1)
    (found,) = energy.windows
    assert (found.source, found.gpu_energy_j) == ("nvml_counter", 60.0)
    assert {node.node: node.gpu_energy_j for node in found.nodes} == {"left": 10.0, "right": 50.0}
    assert found.cpu_package_j is None and found.nodes[0].cpu_package_j == 7.0
    assert energy.counter_period_s == {"a": 0.1, "b": 0.02}


@pytest.mark.parametrize("failing", [0, 1])
def test_one_readers_failure_leaves_no_half_of_a_sum(failing):
    reports = [LEFT, RIGHT]
    broken = replace(reports[failing].windows[0], gpus=(), failure="GPU is lost", marks=("x",))
    reports[failing] = replace(reports[failing], windows=(broken,))
    (found,) = merge(reports, None, 1).windows
    assert (found.source, found.reason) == ("none", "GPU is lost")
    assert found.gpu_energy_j is None and found.gpus == () and found.marks == ("x",)
    assert [node.gpu_energy_j for node in found.nodes] == [None, None]
    assert found.nodes[0].cpu_package_j == 7.0  # CPUs are unaffected


def test_readers_of_one_node_count_together_and_its_cpus_once():
    second = report("left", window("left", d=5.0))
    (found,) = merge([second, LEFT], None, 1).windows
    (node,) = found.nodes
    assert (node.gpu_energy_j, node.cpu_package_j, node.cpu_reason) == (15.0, 7.0, None)


def test_one_sampled_gpu_makes_the_windows_source_sampled_power():
    gpu = GpuEnergy("right", "e", "Old", 3.0, "sampled_power")
    sampled = replace(RIGHT, windows=(replace(RIGHT.windows[0], gpus=(gpu,)),), sample_period_s=0.5)
    (found,) = merge([LEFT, sampled], None, 1).windows
    assert (found.source, found.gpu_energy_j, found.sample_period_s) == ("sampled_power", 13.0, 0.5)


def test_idle_power_of_every_gpu_is_taken_off():
    (found,) = merge([LEFT, RIGHT], None, 1).windows
    assert found.above_idle_j({"a": 1.0, "b": 2.0, "c": 3.0}, 2.0) == pytest.approx(60 - 2 * 6)
    assert found.above_idle_j({"a": 1.0, "b": 2.0}, 2.0) is None
    (unknown,) = merge([LEFT, RIGHT], "no driver", 1).windows
    assert unknown.above_idle_j({"a": 1.0, "b": 2.0, "c": 3.0}, 2.0) is None


def test_stages_and_warnings_of_all_readers():
    warning = MeasurementWarning("throttle", "hot")
    left = replace(LEFT, stages={"a": GpuStages({"denoise": 8.0, "other": 1.0}, frozenset())})
    right = replace(
        RIGHT,
        stages={"b": GpuStages({"text_encode": 2.0, "denoise": 9.0}, frozenset({"denoise"}))},
        warnings=(warning,),
    )
    energy = merge([left, right], None, 1)
    found = {stage.stage: (stage.energy_j, stage.per_gpu_j, stage.aggregated) for stage in energy.stages}
    assert list(found) == ["text_encode", "denoise", "other"]
    assert found["denoise"] == (17.0, {"a": 8.0, "b": 9.0}, True)
    assert found["text_encode"] == (2.0, {"b": 2.0}, False)
    assert energy.warnings == (warning,)
    without = merge([left, replace(right, stage_reason="too short")], None, 1)
    assert without.stages == () and without.stage_reason == "too short"


def test_the_slowest_nodes_periods_are_the_runs():
    quick = replace(LEFT, sampling=Sampling(0.1, 0.1, 0.01, 0.002, 8))
    slow = replace(RIGHT, sampling=Sampling(0.1, 0.4, 0.04, 0.02, 2))
    assert merge([quick, slow], None, 1).sampling == Sampling(0.1, 0.4, 0.04, 0.02, 8)
    lost = replace(slow, sampling=Sampling(0.1, 0.1, 0.01, None, 2))
    assert merge([quick, lost], None, 1).sampling == Sampling(0.1, 0.1, 0.01, None, 8)
    assert merge([LEFT, quick], None, 1).sampling == quick.sampling
    assert merge([LEFT, RIGHT], None, 1).sampling is None
