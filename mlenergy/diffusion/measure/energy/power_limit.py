"""A power limit on the GPUs that take part, for one run, always restored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy.meter import Collective, Meter

_TIMEOUT_S = 60.0


@contextmanager
def power_limit(cluster: Collective, meter: Meter, watts: float | None) -> Iterator[None]:
    """Hold every GPU that the meter reads at ``watts``; None changes nothing. Every rank enters it.

    A process of its own sets the limit and restores it, so that the run may crash, be
    interrupted or be killed. The limits are noted in ``meter.power_limit_w``; one that could
    not be restored is printed at the end.

    Raises:
        UserError: on every rank: no GPU takes part, the limit is out of range, or the
            privilege is missing.
    """
    if watts is None:
        yield
        return
    holder = _LimitProcess(meter.gpus, watts)
    try:
        _agree(cluster, holder.start(), meter, watts)
        yield
    finally:
        lost = holder.end()
        if lost is not None:
            print(f"power limits were {lost}", file=sys.stderr, flush=True)


class _LimitProcess:
    """The process that holds the limit on this rank's GPUs; none is started where there are no GPUs."""

    def __init__(self, gpus: Sequence[Gpu], watts: float) -> None:
        self._indices = [str(gpu.index) for gpu in gpus]
        self._watts = watts
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> str | None:
        """Set the limit; a failure's text, None where it holds."""
        if not self._indices:
            return None
        script = str(Path(__file__).with_name("power_limit_process.py"))
        self._child = subprocess.Popen(
            [sys.executable, "-P", script, str(self._watts), *self._indices],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not end it before the run: it restores the limits after
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline().strip() == "ready":
            return None
        return self.end() or "the process that holds the limit ended without a message"

    def end(self) -> str | None:
        """Let the process restore the limits and wait for it; a failure's text, or None."""
        child, self._child = self._child, None
        if child is None:
            return None
        try:
            _, errors = child.communicate("", timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"not restored within {_TIMEOUT_S:.0f} s; see nvidia-smi -q -d POWER"
        return errors.strip() or None


def _agree(cluster: Collective, failure: str | None, meter: Meter, watts: float) -> None:
    """Go on together, or raise the first rank's failure on every rank."""
    gathered = cluster.gather_object((failure, [gpu.uuid for gpu in meter.gpus]))
    line: str | None = None
    if gathered is not None:
        line = next((text for text, _ in gathered if text), None)
        meter.power_limit_w = {uuid: watts for _, uuids in gathered for uuid in uuids}
        if line is None and not meter.power_limit_w:
            line = meter.reason or "no GPU takes part in this run"
    line = cluster.broadcast_object(line)
    if line is not None:
        raise UserError(f"--power_limit_w {watts:g} cannot be set: {_advice(line)}")


def _advice(line: str) -> str:
    """The line, with a way out at its end."""
    if "Permission" in line:
        return f"{line}; run as root, or through Zeus's daemon zeusd (ZEUSD_SOCK_PATH), or leave it out"
    return f"{line}; choose another limit or leave it out"
