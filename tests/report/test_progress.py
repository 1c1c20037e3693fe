"""Progress on a terminal and in a pipe, and the thread that must not draw while windows are measured."""

from __future__ import annotations

import io
import threading

import pytest

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.report.progress import RunProgress, waiting


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """One warm-up, two windows."""
    monkeypatch.setenv("TERM", "xterm")
    words = ["--benchmark_iters", "2", "--device", "cpu", "workload:t2i", "--workload.model_id", "tiny/flux"]
    return plan_from(words, 1, "test")[1]


def test_in_a_pipe_each_event_is_a_plain_line(plan: Plan) -> None:
    stream = io.StringIO()
    with waiting("importing", stream, enabled=True), RunProgress(stream, plan, enabled=True) as progress:
        progress.say("loading tiny/flux")
        progress.begin_iterations()
        progress.on_iteration("warmup", 0, 1.5)
        progress.on_iteration("measured", 0, 0.25)
    assert stream.getvalue() == "loading tiny/flux\nwarm-up 1/1: 1.500 s\nmeasured 1/2: 0.250 s\n"


def test_other_ranks_say_nothing(plan: Plan) -> None:
    stream = Terminal()
    with waiting("importing", stream, enabled=False), RunProgress(stream, plan, enabled=False) as progress:
        progress.say("loading tiny/flux")
        progress.begin_iterations()
        progress.on_iteration("measured", 0, 0.25)
    assert not stream.getvalue()


def test_on_a_terminal_a_thread_draws_while_loading_and_none_while_measuring(plan: Plan) -> None:
    before = threading.active_count()
    stream = Terminal()
    with RunProgress(stream, plan, enabled=True) as progress:
        progress.say("loading tiny/flux")
        assert threading.active_count() == before + 1
        assert "loading tiny/flux" in stream.getvalue()
        progress.say("counting FLOPs")
        assert "counting FLOPs" in stream.getvalue()
        progress.begin_iterations()
        assert threading.active_count() == before
        assert "warming up" in stream.getvalue() and "0/3" in stream.getvalue()
        progress.on_iteration("warmup", 0, 1.5)
        progress.on_iteration("measured", 0, 0.25)
        assert threading.active_count() == before
        assert "measured 1/2: 0.250 s" in stream.getvalue() and "2/3" in stream.getvalue()
        progress.close()
        end = stream.getvalue()
    assert stream.getvalue() == end  # closed once, also where that is asked for again


def test_a_wait_has_a_spinner_and_leaves_nothing(plan: Plan) -> None:
    before = threading.active_count()
    stream = Terminal()
    with waiting("importing torch", stream, enabled=True):
        assert threading.active_count() == before + 1
        assert "importing torch" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")  # the line is erased
