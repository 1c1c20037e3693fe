"""Lines of the sampling process, on a driver of the test's."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pynvml
import pytest

from mlenergy.diffusion.measure.energy import sampler_process
from mlenergy.diffusion.measure.energy.sampler import read_tracks
from mlenergy.diffusion.measure.energy.sampler_process import GpuReader

AVERAGE_MW, INSTANT_MW = 250_000, 300_000


class Driver:
    """A driver and a clock: what is read next is what the test has set."""

    def __init__(self, monkeypatch) -> None:
        self.clock_s = 10.0
        self.counter: int | Exception = 5_000_000
        self.power_instant = pynvml.NVML_SUCCESS
        self.events: int | Exception = 4
        self.temperature: int | Exception = 61
        monkeypatch.setattr(sampler_process, "time", SimpleNamespace(monotonic=self.now))
        for name, read in {
            "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
            "nvmlDeviceGetTotalEnergyConsumption": lambda _handle: self.give(self.counter),
            "nvmlDeviceGetTemperature": lambda _handle, kind: self.give(self.temperature) + 100 * kind,
            "nvmlDeviceGetClockInfo": lambda _handle, kind: {pynvml.NVML_CLOCK_SM: 1980}.get(kind, 1),
            "nvmlDeviceGetFieldValues": self.fields,
            "nvmlDeviceGetPowerUsage": lambda _handle: AVERAGE_MW,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _handle: self.give(self.events),
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _handle: 8,
        }.items():
            monkeypatch.setattr(pynvml, name, read)

    def now(self) -> float:
        self.clock_s += 0.001
        return self.clock_s

    @staticmethod
    def give(value):
        if isinstance(value, Exception):
            raise value
        return value

    def fields(self, _handle, ids):
        milliwatts = {pynvml.NVML_FI_DEV_POWER_INSTANT: INSTANT_MW}.get(ids[0], AVERAGE_MW)
        value = SimpleNamespace(uiVal=milliwatts)
        return [SimpleNamespace(nvmlReturn=self.power_instant, value=value)]


@pytest.fixture
def driver_of_the_test(monkeypatch):
    return Driver(monkeypatch)


@pytest.fixture
def reader(driver_of_the_test):
    return GpuReader(3, io.StringIO())


def lines(reader):
    return reader._out.getvalue().splitlines()


def test_the_counter_is_written_where_it_moved_with_both_of_its_times(driver_of_the_test, reader):
    for counter in (5_000_000, 5_000_000, 5_000_700):
        driver_of_the_test.counter = counter
        reader.read_counter()
    # The clock goes on by a millisecond with each look at it: made at .001, reads at .002, .003 and .004.
    assert lines(reader) == ["c 3 10.001000 10.002000 5000000", "c 3 10.003000 10.004000 5000700"]


def test_a_sample_holds_the_instants_power(driver_of_the_test, reader):
    reader.read_sample()
    assert lines(reader) == [f"s 3 10.002000 {INSTANT_MW} 61 1980 4"]


def test_old_drivers_and_old_gpus_are_asked_in_their_own_way(driver_of_the_test, reader):
    driver_of_the_test.power_instant = pynvml.NVML_ERROR_NOT_SUPPORTED
    driver_of_the_test.events = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    reader.read_sample()
    assert lines(reader) == [f"s 3 10.002000 {AVERAGE_MW} 61 1980 8"]


def test_each_kind_of_failure_is_written_once_and_a_figure_that_fails_is_unknown(driver_of_the_test, reader):
    driver_of_the_test.counter = driver_of_the_test.temperature = pynvml.NVMLError(
        pynvml.NVML_ERROR_GPU_IS_LOST
    )
    for _ in range(3):
        reader.read_counter()
        reader.read_sample()
    failures = [line.split() for line in lines(reader) if line.startswith("e ")]
    assert [(gpu, int(code), what) for _, gpu, _, code, what in failures] == [
        ("3", pynvml.NVML_ERROR_GPU_IS_LOST, "counter"),
        ("3", pynvml.NVML_ERROR_GPU_IS_LOST, "temperature"),
    ]
    assert [line.split()[4] for line in lines(reader) if line.startswith("s ")] == ["-"] * 3
    assert not any(line.startswith("c ") for line in lines(reader))


def test_a_sample_at_begin_and_end_and_one_a_period_between(
    driver_of_the_test, monkeypatch, tmp_path, capsys
):
    """The clock of the test goes on where the process sleeps; after half a second standard input closes."""

    def closed(wait_s):
        driver_of_the_test.clock_s += max(0.0, wait_s)
        driver_of_the_test.counter += 1000
        return driver_of_the_test.clock_s >= 10.5

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(sampler_process, "_closed", closed)
    sampler_process.main(str(tmp_path / "samples"), 0.1, 0.02, [0, 1])
    assert capsys.readouterr().out == "ready\n"
    tracks = read_tracks(tmp_path / "samples")
    for gpu in (0, 1):
        times_s = [sample.time_s for sample in tracks[gpu].samples]
        assert times_s[0] == pytest.approx(10.0, abs=0.02)
        assert times_s[1:-1] == pytest.approx([10.1, 10.2, 10.3, 10.4], abs=0.045)
        assert times_s[-1] >= 10.5
        reads_s = [read.read_s for read in tracks[gpu].counter]
        assert len(reads_s) == pytest.approx(0.5 / 0.02, abs=3)
        assert reads_s[-1] >= 10.5, "the counter is read once more at the end"


def test_no_burst_after_a_late_wake_up(driver_of_the_test, monkeypatch, tmp_path):
    waits = []

    def closed(wait_s):
        waits.append(wait_s)
        driver_of_the_test.clock_s += 5.0 if len(waits) == 3 else max(0.0, wait_s)
        return len(waits) == 12

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(sampler_process, "_closed", closed)
    sampler_process.main(str(tmp_path / "samples"), 0.1, 0.02, [0])
    assert all(wait_s > -0.01 for wait_s in waits[4:]) and max(waits) <= 0.021
    samples = read_tracks(tmp_path / "samples")[0].samples
    assert len(samples) <= 5, "the samples that were slept through are not made up for"
