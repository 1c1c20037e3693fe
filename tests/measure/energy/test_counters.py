"""Counters of one node on a Zeus of the test's: which call comes when, and what becomes of its figures."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import zeus.device.cpu
import zeus.device.cpu.rapl
import zeus.device.gpu
import zeus.monitor
from zeus.device.exception import ZeusBaseGPUError

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy import counters
from mlenergy.diffusion.measure.energy.counters import MOST_CPU_W, RAPL_PLACES, Counters

GPUS = tuple(Gpu(index, f"GPU-{index}", "Double") for index in (2, 5))


class Zeus:
    """Keeps every call, with the name of the monitor that it came to."""

    def __init__(self, monkeypatch, tmp_path) -> None:
        self.calls: list[tuple] = []
        self.joules = {"gpu": {0: 10.0, 1: 20.0}, "cpu": {0: 3.0, 1: 4.0}, "dram": {0: 1.0, 1: 0.5}}
        self.fails: set[str] = set()
        self.visible: list[str | None] = []
        self.made: list[dict] = []
        self.clock, self.step = 100.0, 1.0
        rapl = tmp_path / "rapl"
        rapl.mkdir()
        monkeypatch.setattr(zeus.monitor, "ZeusMonitor", self.monitor)
        monkeypatch.setattr(zeus.device.gpu, "get_gpus", self.gpus)
        monkeypatch.setattr(zeus.device.cpu, "get_cpus", lambda: [0, 1])
        monkeypatch.setattr(zeus.device.cpu.rapl, "RAPL_DIR", str(rapl))
        monkeypatch.setattr(counters, "RAPL_PLACES", (str(rapl),))
        monkeypatch.setattr(counters, "_has_counter", lambda gpu: gpu.name != "Old")
        monkeypatch.setattr(counters, "time", SimpleNamespace(monotonic=self.now))

    def now(self) -> float:
        self.calls.append(("clock",))
        self.clock += self.step
        return self.clock

    def gpus(self):
        self.visible.append(os.environ.get("CUDA_VISIBLE_DEVICES"))

    def monitor(self, **options):
        kind = "gpu" if options["gpu_indices"] else "cpu"
        self.made.append(options)

        def begin(name, **words):
            self.calls.append((kind, "begin", words))
            if f"{kind} begin" in self.fails:
                raise ValueError(f"{kind} begin")

        def end(name, **words):
            self.calls.append((kind, "end", words))
            if f"{kind} end" in self.fails:
                raise ValueError(f"{kind} end")
            return SimpleNamespace(
                gpu_energy=dict(self.joules["gpu"]),
                cpu_energy=dict(self.joules["cpu"]),
                dram_energy=dict(self.joules["dram"]),
            )

        def total(index):
            if f"gpu {index}" in self.fails:
                raise ZeusBaseGPUError("is lost")

        gpus = SimpleNamespace(get_total_energy_consumption=total)
        return SimpleNamespace(begin_window=begin, end_window=end, gpus=gpus)


@pytest.fixture
def zeus_double(monkeypatch, tmp_path):
    return Zeus(monkeypatch, tmp_path)


def one_window(reader):
    reader.begin()
    reader.end()
    return reader.windows[-1]


def test_gpus_are_read_next_to_the_clock_and_cpus_outside_and_nothing_is_synchronised(zeus_double):
    reader = Counters("node", GPUS, with_cpus=True)
    zeus_double.calls.clear()
    found = one_window(reader)
    assert [call[:2] for call in zeus_double.calls] == [
        *(("cpu", "begin"), ("gpu", "begin"), ("clock",)),
        *(("clock",), ("gpu", "end"), ("cpu", "end")),
    ]
    words = [call[2] for call in zeus_double.calls if len(call) == 3]
    assert all(one["sync_execution"] is False for one in words)
    assert all(one["restart"] is True for one in words[:2]), "a window that failed leaves nothing open"
    assert found.end_s - found.begin_s == 1.0


def test_every_gpu_has_its_own_joules_and_sockets_are_summed(zeus_double):
    found = one_window(Counters("node", GPUS, with_cpus=True))
    assert [(gpu.node, gpu.uuid, gpu.energy_j) for gpu in found.gpus] == [
        ("node", "GPU-2", 10.0),
        ("node", "GPU-5", 20.0),
    ]
    assert (found.cpu_package_j, found.dram_j, found.cpu_reason, found.failure) == (7.0, 1.5, None, None)
    assert found.marks == ()


@pytest.mark.parametrize("before", [None, "7", ""])
def test_zeus_sees_the_drivers_indices_for_a_moment(zeus_double, monkeypatch, before):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    monkeypatch.setattr(zeus.device.gpu, "_gpus", "another list")
    old = Gpu(3, "GPU-3", "Old")
    reader = Counters("node", (GPUS[0], old, GPUS[1]), with_cpus=False)
    assert zeus_double.visible == ["2,5"] and reader.counted == GPUS
    assert zeus.device.gpu._gpus is None
    assert zeus_double.made == [{"gpu_indices": [0, 1], "cpu_indices": []}]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_no_gpu_with_a_counter_is_no_failure(zeus_double):
    reader = Counters("node", (Gpu(0, "GPU-0", "Old"),), with_cpus=False)
    found = one_window(reader)
    assert (reader.reason, reader.counted, reader.trial(), found.gpus, found.failure) == (
        None,
        (),
        None,
        (),
        None,
    )


def test_zeus_that_cannot_start_is_a_reason(zeus_double, monkeypatch):
    def fail():
        raise ZeusBaseGPUError("no driver")

    monkeypatch.setattr(zeus.device.gpu, "get_gpus", fail)
    reader = Counters("node", GPUS, with_cpus=False)
    assert reader.reason == "Zeus cannot read the GPUs: no driver"


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_gpus_that_fail_leave_the_cpus_joules(zeus_double, moment):
    reader = Counters("node", GPUS, with_cpus=True)
    zeus_double.fails = {f"gpu {moment}"}
    found = one_window(reader)
    assert (found.gpus, found.failure) == ((), f"ValueError: gpu {moment}")
    assert (found.cpu_package_j, found.dram_j) == (7.0, 1.5)
    assert found.marks == ("counter_unreadable",)
    assert reader.trial() == f"ValueError: gpu {moment}"
    zeus_double.fails.add("gpu 1")
    assert one_window(reader).failure == "GPU 5 (GPU-5) cannot be read: is lost"
    assert reader.trial() == "GPU 5 (GPU-5) cannot be read: is lost"
    zeus_double.fails = set()
    again = one_window(reader)
    assert (len(again.gpus), again.failure, again.marks, reader.trial()) == (2, None, (), None)


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_cpus_that_fail_leave_the_gpus_joules(zeus_double, moment):
    reader = Counters("node", GPUS, with_cpus=True)
    zeus_double.fails = {f"cpu {moment}"}
    found = one_window(reader)
    assert len(found.gpus) == 2 and found.failure is None
    assert (found.cpu_package_j, found.dram_j) == (None, None)
    assert (found.cpu_reason, found.marks) == (f"ValueError: cpu {moment}", ("cpu_counter",))


@pytest.mark.parametrize("kind", ["cpu", "dram"])
@pytest.mark.parametrize("joules", [-1.0, MOST_CPU_W * 1.0 + 1])
def test_a_cpu_counter_that_wrapped_is_not_believed(zeus_double, kind, joules):
    zeus_double.joules[kind][1] = joules
    found = one_window(Counters("node", (), with_cpus=True))
    assert (found.cpu_package_j, found.dram_j, found.marks) == (None, None, ("cpu_counter",))
    assert f"it gave {joules:.1f} J over 1.00 s" in found.cpu_reason
    zeus_double.joules[kind][1] = MOST_CPU_W * 1.0  # of a window of one second
    assert one_window(Counters("node", (), with_cpus=True)).cpu_reason is None
    zeus_double.joules[kind][1], zeus_double.step = (
        MOST_CPU_W * 1.5,
        2.0,
    )  # no more than a longer window may have
    assert one_window(Counters("node", (), with_cpus=True)).cpu_reason is None


@pytest.mark.parametrize("kind", ["cpu", "dram"])
def test_a_kind_that_the_machine_does_not_count_is_unknown(zeus_double, kind):
    zeus_double.joules[kind] = {}
    found = one_window(Counters("node", (), with_cpus=True))
    assert (found.cpu_package_j is None, found.dram_j is None) == (kind == "cpu", kind == "dram")


def test_without_cpus_asked_none_are_read_and_without_counters_there_is_a_reason(zeus_double, monkeypatch):
    assert one_window(Counters("node", GPUS, with_cpus=False)).cpu_package_j is None
    assert [call for call in zeus_double.calls if call[0] == "cpu"] == []
    monkeypatch.setattr(counters, "RAPL_PLACES", ("/not/there", "/nor/there"))
    found = one_window(Counters("node", GPUS, with_cpus=True))
    assert (found.cpu_reason, found.marks) == ("no RAPL counters on this machine", ())
    # Then nothing of Zeus is imported: most of what a start without GPUs takes beside the libraries.
    for name in ("zeus.device.cpu", "zeus.device.cpu.rapl", "zeus.monitor"):
        monkeypatch.setitem(sys.modules, name, None)
    assert Counters("node", (), with_cpus=True).cpu_reason == "no RAPL counters on this machine"


def test_rapl_is_looked_for_where_zeus_reads_it():
    assert RAPL_PLACES == (zeus.device.cpu.rapl.RAPL_DIR, zeus.device.cpu.rapl.CONTAINER_RAPL_DIR)
