"""Power limits step by step, on GPUs and a cluster of the test's: which ones, in which unit, and put back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import zeus.device.gpu
from zeus.device.gpu.common import ZeusBaseGPUError

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy import power_limit as module
from mlenergy.diffusion.measure.energy import power_limit_process
from mlenergy.diffusion.measure.energy.power_limit import power_limit


class Gpus:
    """Limits in mW by place; keeps what is set."""

    def __init__(self, monkeypatch) -> None:
        self.limits_mw, self.range_mw = [700_000, 650_000], (200_000, 700_000)
        self.set_mw: list[tuple[int, int]] = []
        self.during: list[int] | None = None
        self.fails_at: tuple[int, int] | None = None
        monkeypatch.setattr(zeus.device.gpu, "get_gpus", lambda: self)
        monkeypatch.setattr(power_limit_process, "_wait_for_close", self.run)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(self) -> None:
        self.during = list(self.limits_mw)

    def get_power_management_limit(self, place):
        return self.limits_mw[place]

    def get_power_management_limit_constraints(self, _place):
        return self.range_mw

    def set_power_management_limit(self, place, limit_mw):
        self.set_mw.append((place, limit_mw))
        if self.fails_at == (place, limit_mw):
            raise ZeusBaseGPUError("no privilege")
        self.limits_mw[place] = limit_mw


@pytest.fixture
def gpus(monkeypatch):
    return Gpus(monkeypatch)


def test_every_gpu_holds_the_limit_in_watts_and_gets_its_own_back(gpus, capsys):
    assert power_limit_process.main(400.5, ["3", "5"]) is None
    assert gpus.during == [400_500, 400_500] and gpus.limits_mw == [700_000, 650_000]
    assert capsys.readouterr().out == "ready\n"


@pytest.mark.parametrize(("watts", "allowed"), [(199.9, False), (200, True), (700, True), (700.1, False)])
def test_a_limit_out_of_range_is_not_tried(gpus, watts, allowed):
    line = power_limit_process.main(watts, ["3", "5"])
    assert (line is None) is allowed
    assert allowed or line == f"GPU 3 allows 200 to 700 W, not {watts:g} W"
    assert bool(gpus.set_mw) is allowed and gpus.limits_mw == [700_000, 650_000]


def test_a_limit_that_cannot_be_set_on_one_gpu_is_taken_off_the_others(gpus, capsys):
    gpus.fails_at = (1, 400_000)
    assert power_limit_process.main(400, ["3", "5"]) == "ZeusBaseGPUError: no privilege"
    assert gpus.during is None and gpus.limits_mw == [700_000, 650_000] and capsys.readouterr().out == ""


def test_a_limit_that_cannot_be_put_back_is_told_with_its_command_and_the_others_are(gpus):
    gpus.fails_at = (0, 700_000)
    line = power_limit_process.main(400, ["3", "5"])
    assert line == "not restored; run: nvidia-smi -i 3 -pl 700 (no privilege)"
    assert gpus.limits_mw == [400_000, 650_000]


class Holder:
    """The process that holds the limit, as the run sees it."""

    def __init__(self, gpus, watts) -> None:
        Holder.calls = [("made", tuple(gpu.index for gpu in gpus), watts)]

    def start(self):
        Holder.calls.append("start")
        return Holder.failure

    def end(self):
        Holder.calls.append("end")
        return Holder.lost


@pytest.fixture
def run(monkeypatch):
    """Enter the limit on rank 0; others: what other ranks send."""
    monkeypatch.setattr(module, "_LimitProcess", Holder)
    Holder.failure = Holder.lost = None
    meter = SimpleNamespace(gpus=(Gpu(3, "GPU-a", "x"),), power_limit_w={}, reason="no driver")

    def enter(watts=400.0, others=(), error=None, own_gpus=True):
        meter.gpus = meter.gpus if own_gpus else ()
        cluster = SimpleNamespace(
            gather_object=lambda own: [own, *others], broadcast_object=lambda line: line
        )
        with power_limit(cluster, meter, watts):
            if error is not None:
                raise error
        return meter

    return enter


def test_all_ranks_gpus_are_noted_with_the_limit(run):
    meter = run(others=[(None, ["GPU-b", "GPU-c"])])
    assert meter.power_limit_w == dict.fromkeys(("GPU-a", "GPU-b", "GPU-c"), 400.0)
    assert Holder.calls == [("made", (3,), 400.0), "start", "end"]


def test_the_limit_ends_with_the_run_however_that_ends(run, capsys):
    Holder.lost = "not restored; run: x"
    with pytest.raises(KeyboardInterrupt):
        run(error=KeyboardInterrupt())
    assert Holder.calls[-1] == "end"
    assert capsys.readouterr().err == "power limits were not restored; run: x\n"


def test_any_ranks_failure_ends_the_run_before_it_begins(run):
    with pytest.raises(UserError, match=r"--power_limit_w 400 cannot be set: GPU 1 .* or leave it out"):
        run(others=[("GPU 1 allows 200 to 300 W", ["GPU-b"])])
    assert Holder.calls[-1] == "end", "what other ranks have set is put back"


def test_without_any_gpu_there_is_nothing_to_limit(run):
    with pytest.raises(UserError, match="cannot be set: no driver"):
        run(own_gpus=False)


def test_no_limit_changes_nothing(run):
    Holder.calls = []
    assert run(watts=None).power_limit_w == {} and Holder.calls == []
