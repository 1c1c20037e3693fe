"""Exit codes, and the line that goes with each."""

from __future__ import annotations

import sys

import pytest

from mlenergy.diffusion.errors import CheckError, Interrupted, UserError
from mlenergy.diffusion.supervision import exit_codes
from mlenergy.diffusion.supervision.exit_codes import exit_code_for, exit_code_of, message_of

ENDS = [
    (UserError("put it\n there"), 2, "put it there"),
    (Interrupted(15, "it is saved"), 128 + 15, "it is saved"),
    (Interrupted(2, "it is saved"), 128 + 2, "it is saved"),
    (CheckError("not known"), 1, "not known"),
    (ValueError("a\nbug"), 1, "unexpected ValueError on rank 3: a bug"),
    (ValueError(), 1, "unexpected ValueError on rank 3: no message"),
]


@pytest.mark.parametrize(("error", "code", "line"), ENDS)
def test_each_end_has_its_code_and_its_line(error, code, line):
    assert exit_code_for(error) == code
    message = message_of(error, 3)
    assert message.endswith(line) if isinstance(error, Interrupted) else message == line


def test_ctrl_c_has_the_code_of_its_signal():
    assert (exit_code_for(KeyboardInterrupt()), message_of(KeyboardInterrupt(), 0)) == (130, "interrupted")


@pytest.fixture
def program(monkeypatch, capsys):
    """Run a program that ends with an error as one rank, with these words."""

    def run(error, *words):
        def ends(_words, _rank):
            if error is not None:
                raise error

        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        code = exit_code_of(ends)
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(("error", "code", "line"), ENDS)
def test_a_program_ends_with_one_line_on_stderr(program, error, code, line):
    found, err = program(error)
    assert found == code and err.count("\n") == 1 and err.startswith("mlenergy: error: ")
    assert line.replace("rank 3", "rank 0") in err
    assert ("--debug shows the traceback" in err) == (code == 1)


def test_what_works_says_nothing(program):
    assert program(None) == (0, "")


def test_with_debug_the_unexpected_is_raised_and_a_mistake_is_not(program):
    with pytest.raises(ValueError, match="a bug"):
        program(ValueError("a bug"), "--debug")
    assert program(UserError("put it there"), "--debug")[0] == 2


def test_a_rank_that_is_not_the_first_to_fail_says_nothing(program, monkeypatch):
    slept = []
    monkeypatch.setattr(exit_codes, "first_to_fail", lambda _rank: False)
    monkeypatch.setattr(exit_codes.time, "sleep", slept.append)
    assert program(UserError("put it there")) == (2, "")
    assert slept == [5.0], "it leaves the other one time to speak"
