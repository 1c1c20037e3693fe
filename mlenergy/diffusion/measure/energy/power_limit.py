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

    A child of its own sets the limit and restores it, so that the run may crash, be
    interrupted or be killed. The limits are noted in ``meter.power_limit_w``.

    Raises:
        UserError: on every rank: no GPU takes part, the limit is out of range, or the
            privilege is missing; at the end: a limit could not be restored.
    """
    if watts is None:
        yield
        return
    keeper = _Keeper(meter.gpus, watts)
    try:
        _agree(cluster, keeper.start(), meter, watts)
        yield
    finally:
        lost = keeper.end()
        if lost is not None:
            print(f"power limits were {lost}", file=sys.stderr, flush=True)


class _Keeper:
    """The child that holds the limit on this process's GPUs; nothing where there are none."""

    def __init__(self, gpus: Sequence[Gpu], watts: float) -> None:
        self._indices = [str(gpu.index) for gpu in gpus]
        self._watts = watts
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> str | None:
        """Set the limit; what went wrong, None where it holds."""
        if not self._indices:
            return None
        script = str(Path(__file__).with_name("power_limit_process.py"))
        self._child = subprocess.Popen(
            [sys.executable, "-P", script, str(self._watts), *self._indices],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the run; this child outlives it by a moment
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline().strip() == "ready":
            return None
        return self.end() or "the process that holds the limit ended without a word"

    def end(self) -> str | None:
        """Let the child restore the limits and wait for it; what went wrong."""
        child, self._child = self._child, None
        if child is None:
            return None
        try:
            _, errors = child.communicate("", timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"not restored within {_TIMEOUT_S:.0f} s; see nvidia-smi -q -d POWER"
        return errors.strip() or None


def _agree(cluster: Collective, trouble: str | None, meter: Meter, watts: float) -> None:
    """All ranks go on, or all raise the first rank's trouble."""
    told = cluster.gather_object((trouble, [gpu.uuid for gpu in meter.gpus]))
    line: str | None = None
    if told is not None:
        line = next((text for text, _ in told if text), None)
        meter.power_limit_w = {uuid: watts for _, uuids in told for uuid in uuids}
        if line is None and not meter.power_limit_w:
            line = meter.reason or "no GPU takes part in this run"
    line = cluster.broadcast_object(line)
    if line is not None:
        raise UserError(f"--power_limit_w {watts:g} cannot be set: {_advice(line)}")


def _advice(line: str) -> str:
    """The line, ending in what to do."""
    if "Permission" in line:
        return f"{line}; run as root, or through Zeus's daemon zeusd (ZEUSD_SOCK_PATH), or leave it out"
    return f"{line}; choose another limit or leave it out"
