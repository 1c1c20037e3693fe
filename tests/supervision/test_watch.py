"""The thread that watches over a run, by itself."""

import time

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.distributed.store import Store
from mlenergy.diffusion.supervision import watch as module
from mlenergy.diffusion.supervision.watch import Watch


def test_a_run_that_is_over_does_not_wait_for_the_next_tick(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TICK_S", 20.0)
    rank = Rank()
    watch = Watch(Store(rank), tmp_path / "stacks", 0.0, lambda: None, lambda *_: None, rank)
    watch.start()
    begin_s = time.monotonic()
    watch.close()
    assert time.monotonic() - begin_s < 10 and not watch._thread.is_alive()
    assert watch.stop_signal is None
