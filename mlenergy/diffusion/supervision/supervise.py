"""One run under supervision: its status on disk, its signals received, its failure on record."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.distributed.store import Store
from mlenergy.diffusion.errors import Interrupted, NoEffectError, interrupted_before_measuring
from mlenergy.diffusion.supervision.estimate import TIME_LIMIT_S
from mlenergy.diffusion.supervision.exit_codes import exit_code_for, is_unexpected, message_of
from mlenergy.diffusion.supervision.oom_killer import Kills
from mlenergy.diffusion.supervision.out_of_memory import OutOfMemory, explain_memory
from mlenergy.diffusion.supervision.status import close_for_the_dead, describe, is_alive
from mlenergy.diffusion.supervision.watch import GRACE_S, Watch

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.measure.session import StopCondition
    from mlenergy.diffusion.supervision.folder import ResultFolder

_CONNECTION_S = 2.0


class Supervisor:
    """Receiver of the run's stages and iterations, and its answer to whether it has to stop."""

    def __init__(self, plan: Plan, cluster: Cluster, folder: ResultFolder, hang_timeout_s: float) -> None:
        self._plan = plan
        self._cluster = cluster
        self._paths = folder.paths
        self._terminal = folder.terminal.err
        self._store = Store(cluster.rank)
        self._peers: Sequence[tuple[str, int]] = cluster.all_gather_object(
            (socket.gethostname(), os.getpid())
        )
        self._status = folder.status
        self._durations_s: list[float] = []
        self._hang_timeout_s = hang_timeout_s
        stacks = folder.paths.stacks(cluster.rank.rank)
        self.watch = Watch(self._store, stacks, hang_timeout_s, self._lost_peer, self._abandon, cluster.rank)
        self._kills_before = Kills.count()
        self.stage = "starting"
        self.interrupted_by: int | None = None  # the signal that ended the measuring; rank 0 alone knows
        # Told the reason where the run ends badly, also from the watch's thread; best effort.
        self.on_failure: Callable[[str], object] | None = None

    def enter(self, stage: str) -> None:
        """A new stage of the run begins."""
        self.stage = stage
        self.watch.beat()
        # Before the first window nothing can be lost.
        self.watch.grace_s = 0.0 if stage == "loading" or self._is_warming_up else GRACE_S
        self._write(state="running", stage=stage, **self._done())

    def on_iteration(self, kind: str, _index: int, seconds: float) -> None:
        """One call has ended; `kind` is warmup or measured."""
        self.watch.beat()
        if kind == "measured":
            self.watch.grace_s = GRACE_S
            self._durations_s.append(seconds)

    def or_signal(self, rule: StopCondition | None) -> StopCondition:
        """A rule that also ends the measuring when a signal has come, on any of the run's hosts."""
        return _OrSignal(rule, self)

    def complete(self) -> None:
        """The run is over: its result is written and judged."""
        self._write(state="complete", stage="done", exit_code=0, **self._done())

    def fail(self, error: BaseException) -> None:
        """Put a failure on record: in the store for rank 0, in status.json by rank 0."""
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            number = error.signum if isinstance(error, Interrupted) else signal.SIGINT
            message = message_of(error, self._cluster.rank.rank)
            self._tell_failure(message)
            ending = {"message": message, "exit_code": exit_code_for(error)}
            self._write(state="interrupted", signal=signal.Signals(number).name, **ending, **self._done())
            return
        record = describe(error, self._cluster.rank.rank)
        lost = self._lost_peer_behind(error)
        if lost is not None and not self._store.read("failure"):
            record |= {"rank": None, "message": f"{lost}; then: {record['message']}"}
        self._store.set_once("failure", record)
        first = self._store.read("failure") or record
        self._tell_failure(first["message"])
        state = "effects_failed" if isinstance(error, NoEffectError) else "failed"
        self._write(state=state, **first, **self._done())
        if self._status is None and lost is not None:
            close_for_the_dead(self._paths.status, f"rank 0 exited; {record['message']}")

    def explained(self, error: BaseException) -> BaseException:
        """The error itself, or for a failed allocation the line that names remedies."""
        return explain_memory(error, self._plan, self._cluster.rank.rank, self.stage) or error

    def add_estimate(self, error: OutOfMemory) -> None:
        """Tell what the plan had estimated, too. Only after `fail`, since it may take a while."""
        self.watch.beat()
        patience_s = self._hang_timeout_s / 3 if self._hang_timeout_s else TIME_LIMIT_S
        estimate = error.add_estimate(min(TIME_LIMIT_S, patience_s))
        rank = self._cluster.rank.rank
        record, first = describe(error, rank), self._store.read("failure")
        if first is not None and first["rank"] != rank:  # the plan's estimate is that rank's as well
            memory = first["memory"]
            record = first | {"memory": memory and memory | estimate.as_dict()}
        self._store.set_once("failure with its estimate", record)
        self._write(**record)

    @property
    def is_stopping(self) -> bool:
        """True where a signal has come to any rank."""
        return self.watch.stop_signal is not None

    @property
    def _is_warming_up(self) -> bool:
        return self.stage == "measuring" and not self._durations_s

    def _write(self, **changes: object) -> None:
        if self._status is not None:
            self._status.write(**changes)

    def _done(self) -> dict[str, object]:
        return {"iterations_done": len(self._durations_s), "durations_s": tuple(self._durations_s)}

    def _abandon(self, reason: str, signum: int | None, exit_code: int) -> None:
        """Called by the watch's thread when the main thread cannot end the run."""
        ending: dict[str, Any] = {"message": reason, "exit_code": exit_code}
        if self._status is None:
            close_for_the_dead(self._paths.status, f"rank 0 exited; {reason}")
        elif self._status.has_ended and self._status.status.state != "failed":
            return  # the main thread is on its way out
        elif signum is not None:
            name = signal.Signals(signum).name
            message = f"interrupted by {name} while {self._doing()} ({reason}); {self._kept()}"
            if not self._durations_s:
                message = interrupted_before_measuring(signum, self._doing())
            self._tell_failure(message)
            self._write(
                state="interrupted", signal=name, message=message, exit_code=exit_code, **self._done()
            )
            with suppress(OSError):  # this process exits at once, without another word
                print(f"mlenergy: error: {message}", file=self._terminal, flush=True)
        else:
            # What a peer has put on record says more; its estimate may have come since.
            known = self._store.read("failure with its estimate") or self._store.read("failure")
            first: dict[str, Any] = known or ending
            self._tell_failure(first["message"])
            self._write(state="failed", **first, **self._done())

    def _doing(self) -> str:
        words = {"effects": "looking at the effects of the optimizations", "starting": "loading"}
        return "warming up" if self._is_warming_up else words.get(self.stage, self.stage)

    def _kept(self) -> str:
        """The part of the measuring that is on disk, where the main thread can add nothing any more."""
        if self.stage == "effects":
            return f"the measured numbers are in {self._paths.results}"
        if self.stage == "saving":
            return f"the measured numbers are in {self._paths.interrupted}"
        return f"of {len(self._durations_s)} windows the durations are in {self._paths.status}"

    def _tell_failure(self, reason: str) -> None:
        if self.on_failure is not None:
            with suppress(Exception):  # the failure itself matters more
                self.on_failure(reason)

    def _lost_peer_behind(self, error: BaseException) -> str | None:
        """The peer that has exited; a broken connection is noticed a moment before its process has ended."""
        limit_s = time.monotonic() + (_CONNECTION_S if is_unexpected(error) and len(self._peers) > 1 else 0)
        while (lost := self._lost_peer()) is None and time.monotonic() < limit_s:
            time.sleep(0.1)
        return lost

    def _lost_peer(self) -> str | None:
        own = socket.gethostname()
        for rank, (host, pid) in enumerate(self._peers):
            if host == own and pid != os.getpid() and not is_alive(pid):
                why = Kills.count().since(self._kills_before)
                return f"rank {rank} (process {pid}) exited" + (f", {why}" if why else "")
        return None


class _OrSignal:
    def __init__(self, rule: StopCondition | None, supervisor: Supervisor) -> None:
        self._rule = rule
        self._supervisor = supervisor

    def is_met(self, durations_s: Sequence[float]) -> bool:
        """True where the rule says so, or a signal has come before the last window."""
        if self._rule is not None and self._rule.is_met(durations_s):
            return True
        self._supervisor.interrupted_by = self._supervisor.watch.stop_signal
        return self._supervisor.interrupted_by is not None


@contextmanager
def supervised(
    plan: Plan, cluster: Cluster, folder: ResultFolder, hang_timeout_s: float
) -> Iterator[Supervisor]:
    """Watch over the body; every rank enters it.

    Raises:
        UserError: instead of an allocation that failed.
    """
    supervisor = Supervisor(plan, cluster, folder, hang_timeout_s)
    supervisor.watch.start()
    try:
        yield supervisor
    except BaseException as error:
        explained = supervisor.explained(error)
        if supervisor.is_stopping and is_unexpected(error) and not cluster.rank.is_main:
            # Rank 0 has ended before this one: it has told, and this error says only that it is gone.
            supervisor.watch.end_stopped()
        if explained is error:
            supervisor.fail(error)
            raise
        explained.__cause__ = error  # now, so that the traceback on record tells where it happened
        supervisor.fail(explained)
        if isinstance(explained, OutOfMemory):
            supervisor.add_estimate(explained)
        raise explained from error
    finally:
        supervisor.watch.close()
