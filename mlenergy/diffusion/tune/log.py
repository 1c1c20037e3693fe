"""What a search says while it runs: to a file, and to the error stream, so that reports can be piped."""

from __future__ import annotations

import sys
from pathlib import Path

from mlenergy.diffusion.executors.ledger import LogFile
from mlenergy.diffusion.report.lines import energy, number
from mlenergy.diffusion.tune.candidates import Choice
from mlenergy.diffusion.tune.schedule import Limits, Step
from mlenergy.diffusion.tune.starts import Failed, Measured


class TuneLog(LogFile):
    """The lines of one call."""

    def __init__(self, file: Path, limits: Limits) -> None:
        super().__init__(file)
        self._limits = limits

    def say(self, line: str) -> None:
        """To the file and the terminal."""
        self.write(line)
        print(line, file=sys.stderr, flush=True)

    def begin(self, choice: Choice, known: int) -> None:
        """What there is to do."""
        for one in choice.pruned:
            self.write(f"cannot work: {one.label}: {one.reason}")
        if choice.guess_reason is not None:
            self.say(f"the plan has no guess of times and memory: {choice.guess_reason}")
        self.say(
            f"{len(choice.candidates)} candidates, {known} of them measured before; "
            f"{len(choice.pruned)} combinations cannot work"
        )

    def before(self, step: Step) -> None:
        """A start is about to be made."""
        iterations = self._limits.iterations(step.start)
        expected = f", about {number(step.expected_s)} s" if step.expected_s else ""
        self.say(
            f"#{step.tried.candidate.number} start {step.start}, {iterations} iterations{expected}: "
            f"{step.tried.candidate.label}"
        )

    def after(self, step: Step, outcome: Measured | Failed) -> None:
        """It has ended."""
        took = "" if outcome.wall_s is None else f", took {number(outcome.wall_s)} s"
        if isinstance(outcome, Failed):
            self.say(f"#{step.tried.candidate.number} failed{took}: {outcome.message}")
            return
        joules = "joules not known" if outcome.joules is None else f"{energy(outcome.joules.mean)} per image"
        self.say(f"#{step.tried.candidate.number} {number(outcome.seconds.mean)} s per image, {joules}{took}")
