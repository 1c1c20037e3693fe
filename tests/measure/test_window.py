"""The order of everything that happens in a window: the definition of what is measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.measure import window
from mlenergy.diffusion.measure.window import run_window

CPU = torch.device("cpu")
BATCH = Batch(("a red fox",), (0,))


@pytest.fixture
def calls(monkeypatch):
    """Names of the calls in order; the clock goes on by one second with each of its own."""
    calls: list[str] = []

    def now() -> float:
        calls.append("clock")
        return float(calls.count("clock"))

    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(window, "synchronize", lambda _device: calls.append("synchronize"))
    return calls


def recorder(calls, **methods):
    return SimpleNamespace(**{name: (lambda text=text: calls.append(text)) for name, text in methods.items()})


def test_the_clock_lies_within_the_counters_and_around_the_work_of_all_ranks(calls):
    meter = recorder(calls, begin="counters begin", end="counters end")
    cluster, probe = recorder(calls, barrier="barrier"), recorder(calls, open="probe")

    def generate(batch):
        calls.append("generate")
        return Generated(None, first_row=len(batch.prompts))

    found = run_window(generate, BATCH, meter, cluster, CPU, probe)
    before = ["synchronize", "barrier", "counters begin", "clock", "probe"]
    after = ["synchronize", "barrier", "clock", "counters end"]
    assert calls == [*before, "generate", *after]
    assert (found.begin_s, found.end_s, found.duration_s) == (1.0, 2.0, 1.0)
    assert found.generated.first_row == 1


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_is_synchronised_by_its_own_library(monkeypatch, kind):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: done.append("mps"))
    window.synchronize(torch.device(kind))
    window.synchronize(CPU)
    assert done == [kind]
