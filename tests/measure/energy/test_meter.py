"""The meter of each rank, on a cluster, a driver and samplers of the test's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy import meter as module
from mlenergy.diffusion.measure.energy.curves import Sample, Track
from mlenergy.diffusion.measure.energy.meter import Meter, MeterOptions, build_meter, idle_power_w, rank_gpu

GPUS = (Gpu(0, "GPU-a", "Double"), Gpu(1, "GPU-b", "Double"))


class Cluster:
    """One rank beside others, whose parts of each gathering the test gives."""

    def __init__(self, rank=0, others=()) -> None:
        self.rank = Rank(rank, rank, 2, 2, "here")
        self.others = list(others)
        self.sent: list = []

    def gather_object(self, value):
        self.sent.append(value)
        return None if self.rank.rank else [value, *(other(value) for other in self.others)]

    def broadcast_object(self, value):
        return value


class Reader:
    """A node's reader: keeps what it was made with and told to do."""

    made: list

    def __init__(self, node, gpus, with_cpus, period_s) -> None:
        Reader.made.append((node, gpus, with_cpus, period_s))
        self.gpus, self.told = gpus, []
        self.counters = SimpleNamespace(
            reason=Reader.reason,
            trial=lambda: Reader.trial,
            begin=lambda: self.told.append("begin"),
            end=lambda: self.told.append("end"),
        )
        for name in ("start_sampling", "stop_sampling", "close"):
            setattr(self, name, lambda name=name: self.told.append(name))


@pytest.fixture
def readers(monkeypatch):
    Reader.made, Reader.reason, Reader.trial = [], None, None
    monkeypatch.setattr(module, "NodeReader", Reader)
    monkeypatch.setattr(module, "list_gpus", lambda: SimpleNamespace(gpus=GPUS, reason=None))
    monkeypatch.setattr(module, "idle_power_w", lambda gpus, *_: {gpu.uuid: 50.0 for gpu in gpus})
    return Reader


def second_rank(view):
    """The same node's second rank, where views are gathered; nothing of its own elsewhere."""
    if isinstance(view, module.RankView):
        return module.RankView(1, view.node, view.machine, "GPU-b", None, GPUS)
    return {"GPU-z": 7.0} if isinstance(view, dict) else None


def test_the_first_rank_of_a_node_reads_its_gpus_and_cpus(readers):
    meter = build_meter(Cluster(others=[second_rank]), "GPU-a", None, MeterOptions(sample_period_s=0.05))
    assert readers.made == [("here", GPUS, True, 0.05)]
    assert meter.gpus == GPUS and meter.reason is None
    assert meter.idle_power_w == {"GPU-a": 50.0, "GPU-b": 50.0, "GPU-z": 7.0}
    for call in (meter.start, meter.begin, meter.end, meter.stop, meter.close):
        call()
    assert meter._reader.told == ["start_sampling", "begin", "end", "stop_sampling", "close"]


def test_other_ranks_of_the_node_read_nothing(readers, monkeypatch):
    second = Cluster(rank=1)
    answer = module.ReaderAssignment({0: GPUS}, (0,))
    monkeypatch.setattr(second, "broadcast_object", lambda value: answer if len(second.sent) == 1 else value)
    meter = build_meter(second, "GPU-b", None, MeterOptions())
    assert readers.made == [] and meter.gpus == ()
    for call in (meter.start, meter.begin, meter.end, meter.stop, meter.close):
        call()  # nothing to do


def test_a_run_without_gpus_reads_the_cpus_and_samples_nothing(readers):
    meter = build_meter(Cluster(), None, None, MeterOptions())
    assert readers.made == [("here", (), True, 0.1)]
    assert meter.reason == "no GPU takes part in this run" and meter.idle_power_w == {}
    meter.start()
    meter.begin()
    assert meter._reader.told == ["begin"]


def test_idle_power_is_not_sampled_where_that_is_not_wanted(readers):
    assert build_meter(Cluster(), "GPU-a", None, MeterOptions(idle_s=0)).idle_power_w == {}


@pytest.mark.parametrize(
    ("change", "uuid", "words"),
    [
        ({"reason": "Zeus cannot read"}, "GPU-a", "Zeus cannot read"),
        ({"trial": "GPU 0 cannot be read"}, "GPU-a", "GPU 0 cannot be read"),
        ({}, None, "no GPU takes part in this run"),
    ],
)
def test_energy_that_is_required_and_cannot_be_read_ends_the_run(readers, change, uuid, words):
    for name, value in change.items():
        setattr(readers, name, value)
    with pytest.raises(UserError, match=f"^--require_energy was given, but energy cannot be read: {words}$"):
        build_meter(Cluster(), uuid, None, MeterOptions(require_energy=True))
    meter = build_meter(Cluster(), uuid, None, MeterOptions())
    assert meter.reason == (None if "trial" in change else words)


def test_another_ranks_failure_is_every_ranks(readers):
    fails = [lambda value: second_rank(value) or (None if isinstance(value, dict) else "rank 1 cannot")]
    meter = build_meter(Cluster(others=fails), "GPU-a", None, MeterOptions())
    assert meter.reason == "rank 1 cannot" and meter.idle_power_w == {}
    meter.start()
    assert meter._reader.told == []


def test_required_energy_that_can_be_read_is_no_obstacle(readers):
    assert build_meter(Cluster(), "GPU-a", None, MeterOptions(require_energy=True)).reason is None


def test_an_unknown_device_is_one_line_on_every_rank(readers):
    with pytest.raises(UserError, match="--energy_gpus 7 is no GPU of this run's nodes"):
        build_meter(Cluster(), "GPU-a", None, MeterOptions(energy_gpus=("7",)))


def test_ranks_without_a_reader_take_part_in_gathering(monkeypatch):
    other = Cluster(rank=1)
    assert Meter(other, None).collect([None]) is None and other.sent == [None]
    main = Cluster(others=[lambda _own: None])
    found = Meter(main, None)
    found.reason = "nothing can be read"
    energy = found.collect([None, None])
    assert [window.source for window in energy.windows] == ["none"] * 2
    assert [window.reason for window in energy.windows] == ["nothing can be read"] * 2


class SamplerOfTheTest:
    """Samples of known power; says in which order it was started, waited for and stopped."""

    failure: str | None = None

    def __init__(self, indices, period_s) -> None:
        SamplerOfTheTest.made = (indices, period_s)

    def start(self):
        SamplerOfTheTest.order = ["start"]
        return self.failure

    def stop(self):
        SamplerOfTheTest.order.append("stop")
        # One sample every 0.7 s: the last one is of after the time.
        powers = {0: (10.0, 20.0, None, 90.0, 5000.0), 1: (None,)}
        return {
            gpu: Track(samples=[Sample(0.7 * at, w, 0, 0, 0) for at, w in enumerate(watts)])
            for gpu, watts in powers.items()
        }

    def kill(self):
        SamplerOfTheTest.order.append("kill")


def _raise(error):
    raise error


def test_idle_power_is_the_mean_over_its_time_by_uuid(monkeypatch):
    monkeypatch.setattr(module, "Sampler", SamplerOfTheTest)
    clock = SimpleNamespace(now=0.0, work_s=0.5)
    time = SimpleNamespace(
        sleep=lambda seconds: SamplerOfTheTest.order.append(seconds), monotonic=lambda: clock.now
    )
    monkeypatch.setattr(module, "time", time)
    gpus = (*GPUS, Gpu(4, "GPU-never-seen", "Double"))

    def work():
        SamplerOfTheTest.order.append("work")
        clock.now += clock.work_s

    assert idle_power_w(gpus, 2.0, 0.1, work) == {"GPU-a": 40.0}  # the others gave no power: unknown, not 0
    assert SamplerOfTheTest.made == ([0, 1, 4], 0.1)
    assert SamplerOfTheTest.order == ["start", "work", 1.5, "stop", "kill"]
    # Work that takes longer is waited for, and what it takes longer is not in the mean.
    clock.now, clock.work_s = 0.0, 9.0
    assert idle_power_w(gpus, 2.0, 0.1, work) == {"GPU-a": 40.0}
    assert SamplerOfTheTest.order == ["start", "work", 0.0, "stop", "kill"]
    with pytest.raises(UserError):
        idle_power_w(gpus, 2.0, 0.1, lambda: _raise(UserError("xfuser is not installed")))
    assert SamplerOfTheTest.order == ["start", "kill"], "no process is left behind"
    assert idle_power_w((), 2.0, 0.1) == {}
    monkeypatch.setattr(SamplerOfTheTest, "failure", "no process")
    assert idle_power_w(GPUS, 2.0, 0.1) == {}


def test_a_rank_on_a_cpu_or_on_apples_gpu_has_no_uuid():
    assert rank_gpu(torch.device("cpu")) == (None, None)
    uuid, reason = rank_gpu(torch.device("mps"))
    assert uuid is None and "no energy counter" in reason


@pytest.mark.parametrize(
    ("torchs", "drivers"), [("12-ab", "GPU-12-ab"), ("GPU-1", "GPU-1"), ("MIG-1", "MIG-1")]
)
def test_a_ranks_gpu_is_named_as_the_driver_names_it(monkeypatch, torchs, drivers):
    properties = {3: SimpleNamespace(uuid=torchs)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties[device.index])
    assert rank_gpu(torch.device("cuda", 3)) == (drivers, None)
