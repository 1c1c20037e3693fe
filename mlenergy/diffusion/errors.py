"""Exceptions that end a run in one line."""

import signal


class UserError(Exception):
    """A mistake or a missing thing that the user can mend.

    Its text is the single line the user sees: it says what is wrong, with the
    arithmetic where there is one, and ends in what to do next.
    """


class NoEffectError(UserError):
    """An optimization changed nothing; the result is kept, but not complete."""


class CheckError(Exception):
    """A check after the measuring crashed; the measured numbers are saved."""


class Interrupted(Exception):
    """A signal asked the run to end before its last window; `signum` says which."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}: {text}")
        self.signum = signum
