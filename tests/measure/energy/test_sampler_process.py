"""Lines of the sampling process, on a driver of the test's."""

from __future__ import annotations

import io
import itertools
import statistics
from types import SimpleNamespace

import pynvml
import pytest

from mlenergy.diffusion.measure.energy import sampler_process
from mlenergy.diffusion.measure.energy.sampler import read_recording
from mlenergy.diffusion.measure.energy.sampler_process import GpuReader

AVERAGE_MW, INSTANT_MW = 250_000, 300_000


class Driver:
    """A driver and a clock: what is read next is what the test has set."""

    def __init__(self, monkeypatch) -> None:
        self.clock_s = 10.0
        self.look_s = 0.001  # by which the clock goes on with each look at it
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
        self.clock_s += self.look_s
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

    driver_of_the_test.look_s = 1e-5

    def closed(wait_s):
        driver_of_the_test.clock_s += max(0.0, wait_s)
        driver_of_the_test.counter += 1000
        return driver_of_the_test.clock_s >= 10.5

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(sampler_process, "_closed", closed)
    sampler_process.main(str(tmp_path / "samples"), 0.1, 0.02, [0, 1])
    assert capsys.readouterr().out == "ready 0.1 0.02\n"
    tracks = read_recording(tmp_path / "samples").tracks
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
    driver_of_the_test.look_s = 1e-5

    def closed(wait_s):
        waits.append(wait_s)
        driver_of_the_test.clock_s += 5.0 if len(waits) == 3 else max(0.0, wait_s)
        return len(waits) == 12

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(sampler_process, "_closed", closed)
    sampler_process.main(str(tmp_path / "samples"), 0.1, 0.02, [0])
    assert all(wait_s > -0.01 for wait_s in waits[4:]) and max(waits) <= 0.021
    samples = read_recording(tmp_path / "samples").tracks[0].samples
    assert len(samples) <= 5, "the samples that were slept through are not made up for"


def sampled(driver, monkeypatch, path, *, seconds, counter_s, power_s, gpus=(0, 1), slower=None):
    """A recording of so many seconds by a driver whose reads take time; ``slower``: (moment, factor)."""
    driver.look_s = 1e-6

    def factor():
        return 1.0 if slower is None or driver.clock_s < 10.0 + slower[0] else slower[1]

    def count(_handle):
        driver.clock_s += counter_s * factor()
        return int(driver.clock_s * 1000)

    def fields(handle, ids):
        driver.clock_s += power_s * factor()
        return Driver.fields(driver, handle, ids)

    def closed(wait_s):
        driver.clock_s += max(0.0, wait_s)
        return driver.clock_s >= 10.0 + seconds

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", count)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", fields)
    monkeypatch.setattr(sampler_process, "_closed", closed)
    sampler_process.main(str(path), 0.1, 0.01, list(gpus))
    return read_recording(path)


def gaps_s(times_s):
    return [after - before for before, after in itertools.pairwise(times_s)]


def test_periods_stay_as_asked_for_where_a_read_takes_a_twentieth(driver_of_the_test, monkeypatch, tmp_path):
    found = sampled(
        *(driver_of_the_test, monkeypatch, tmp_path / "samples"),
        **{"seconds": 2.0, "counter_s": 0.00024, "power_s": 0.0024},
    )
    assert (found.paces.period_s, found.paces.poll_s) == (0.1, 0.01)
    assert found.paces.sample_read_s == pytest.approx(0.0048, rel=0.01)


def test_each_period_widens_until_a_read_of_all_gpus_is_a_twentieth_of_it(
    driver_of_the_test, monkeypatch, tmp_path, capsys
):
    found = sampled(
        *(driver_of_the_test, monkeypatch, tmp_path / "samples"),
        **{"seconds": 20.0, "counter_s": 0.001, "power_s": 0.01},
    )
    # Two GPUs: 2 ms and 20 ms.
    assert found.paces.poll_s == pytest.approx(0.04, rel=0.01)
    assert found.paces.period_s == pytest.approx(0.4, rel=0.01)
    assert found.paces.sample_read_s == pytest.approx(0.02, rel=0.01)
    ready, *paces = capsys.readouterr().out.split()
    assert (ready, [float(pace) for pace in paces]) == ("ready", pytest.approx([0.4, 0.04], rel=0.01))
    for track in found.tracks.values():
        # Reads for judging are before "ready": no sample but the last of them is in the file.
        assert statistics.median(gaps_s([sample.time_s for sample in track.samples])) == pytest.approx(
            0.4, rel=0.15
        )
        assert len(track.samples) == pytest.approx(20 / 0.4, abs=4)
        reads_s = [read.read_s for read in track.counter[10:-1]]
        assert statistics.median(gaps_s(reads_s)) == pytest.approx(0.04, rel=0.1)


def test_a_driver_that_slows_down_while_it_works_widens_the_periods_too(
    driver_of_the_test, monkeypatch, tmp_path
):
    found = sampled(
        *(driver_of_the_test, monkeypatch, tmp_path / "samples"),
        **{"seconds": 40.0, "counter_s": 0.0001, "power_s": 0.001, "slower": (10.0, 10.0)},
    )
    assert found.paces.poll_s == pytest.approx(0.04, rel=0.01)
    assert found.paces.period_s == pytest.approx(0.4, rel=0.01)
    times_s = [sample.time_s for sample in found.tracks[0].samples]
    assert statistics.median(gaps_s([t for t in times_s if t < 19])) == pytest.approx(0.1, rel=0.05)
    assert statistics.median(gaps_s([t for t in times_s if t > 30])) == pytest.approx(0.4, rel=0.05)


def test_one_slow_read_widens_nothing(driver_of_the_test):
    pace = sampler_process.Pace(0.1)
    takes_s = iter([0.001, 0.5, 0.001, 0.5, 0.001, 0.001])

    def read():
        driver_of_the_test.clock_s += next(takes_s)

    driver_of_the_test.look_s = 0.0
    assert [pace.time([read]) for _ in range(6)] == [False] * 6 and pace.period_s == 0.1
