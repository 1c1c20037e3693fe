r"""Put known one-line bugs into a copy of this tree, one by one, and count those that the tests notice.

    make mutants                                             every bug of tests/mutants/
    python scripts/mutants.py --only measure --jobs 2        those of one room, two at a time
    python scripts/mutants.py --check                        compares the list with the code; runs no test

Each file of tests/mutants/ is a list in TOML:

    [[mutant]]
    name = "the clock opens before the barrier"       # what would be false
    kind = "order"
    file = "measure/window.py"                        # below mlenergy/diffusion
    old = "synchronize(device)\n    cluster.barrier()\n    meter.begin()"     # found exactly once
    new = "synchronize(device)\n    meter.begin()\n    cluster.barrier()"
    tests = ["measure/test_window.py"]                # below tests; else the folder of the room

A bug counts as noticed when these tests pass without it and fail (or hang) with it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "tests" / "mutants"
PACKAGE = Path("mlenergy") / "diffusion"
GOALS = {"measure": 0.95, "results": 0.95}  # what publishes the numbers; the names of folders are in results
GOAL = 0.90  # of each other room
LEFT_OUT = (".git", ".venv", "run", "__pycache__", "*.egg-info", ".*_cache", "build", "dist")
# Imported once; each run of the tests is a fork of this process.
LIBRARIES = (
    "pytest",
    "hypothesis",
    "torch",
    "torch.distributed",
    "scipy.stats",
    "scipy.optimize",
    "diffusers",
)
NO_TESTS = 5  # pytest's exit code


class ListError(Exception):
    """A list that does not fit the code, or tests that fail without any bug."""


@dataclass(frozen=True)
class Mutant:
    """One bug: a text of one file that another one takes the place of."""

    name: str
    kind: str
    file: str  # below mlenergy/diffusion
    old: str
    new: str
    tests: tuple[str, ...]  # below tests

    @property
    def room(self) -> str:
        """The folder of the package, or the file that lies beside the folders."""
        return self.file.split("/")[0].removesuffix(".py")


@dataclass(frozen=True)
class Outcome:
    """The end of the tests with one bug in the code."""

    mutant: Mutant
    noticed: bool
    seconds: float


def read_lists(folder: Path) -> list[Mutant]:
    """Every bug of every list.

    Raises:
        ListError: an entry lacks a key, has one too many, or has the name of another.
    """
    mutants: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["mutant"], start=1):
            room = str(entry.get("file", "")).split("/")[0].removesuffix(".py")
            try:
                mutant = Mutant(**{**entry, "tests": tuple(entry.get("tests", [room]))})
            except TypeError as error:
                raise ListError(f"{path.name}, entry {number}: {error}") from None
            mutants.append(mutant)
    names = [mutant.name for mutant in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ListError(f"two bugs have one name: {'; '.join(twice)}")
    return mutants


def mutated(root: Path, mutant: Mutant) -> str:
    """The file's text with the bug.

    Raises:
        ListError: the file or a test is gone, or the old text is not there exactly once.
    """
    path = root / PACKAGE / mutant.file
    if not path.is_file():
        raise ListError(f"{mutant.name}: there is no {PACKAGE / mutant.file} any more; name its new place")
    gone = [name for name in mutant.tests if not (root / "tests" / name.partition("::")[0]).exists()]
    if gone:
        raise ListError(f"{mutant.name}: there is no tests/{gone[0]} any more; name its new place")
    text = path.read_text(encoding="utf-8")
    found = text.count(mutant.old)
    if found != 1 or mutant.new == mutant.old:
        raise ListError(
            f"{mutant.name}: its old text is {found} times in {mutant.file}, not once; "
            "bring the entry up to date"
        )
    return text.replace(mutant.old, mutant.new)


def stale(root: Path, mutants: Iterable[Mutant]) -> list[str]:
    """A line for each bug that the code no longer has a place for."""
    lines = []
    for mutant in mutants:
        try:
            mutated(root, mutant)
        except ListError as error:
            lines.append(str(error))
    return lines


class Tree:
    """A copy of the tree in which one bug after the other is tried; the checkout is never touched."""

    def __init__(self, root: Path, target: Path) -> None:
        self.root = target
        shutil.copytree(root, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        self._pid: int | None = None
        self._ends_s = 0.0
        self._clean: tuple[Path, str] | None = None

    def put_in(self, mutant: Mutant) -> None:
        """Put the bug into the copy."""
        path = self.root / PACKAGE / mutant.file
        changed = mutated(self.root, mutant)
        self._clean = (path, path.read_text(encoding="utf-8"))
        _write(path, changed)

    def start(self, tests: Sequence[str], timeout_s: float) -> None:
        """Run these tests of the copy in a process of their own, until the first that fails."""
        self._ends_s = time.monotonic() + timeout_s
        self._pid = os.fork()
        if self._pid == 0:
            _run_pytest(self.root, tests)

    def poll(self) -> int | None:
        """pytest's exit code, -1 where the time ran out, None while it runs; takes the bug out at the end."""
        assert self._pid is not None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid and time.monotonic() < self._ends_s:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # what hangs, and what a test left behind
        if not pid:
            os.waitpid(self._pid, 0)
        if self._clean is not None:
            _write(*self._clean)
        self._pid = self._clean = None
        return os.waitstatus_to_exitcode(status) if pid else -1

    @property
    def log(self) -> Path:
        """The output of the last tests."""
        return self.root / "mutants.log"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # Compiled code is known by the second and the size of its source, which two bugs may share.
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _run_pytest(root: Path, tests: Sequence[str]) -> None:
    """Run the tests of the copy in this (forked) process, and end it."""
    code = 3
    try:
        os.setsid()
        os.chdir(root)
        sys.path.insert(0, str(root))
        os.environ["PYTHONPATH"] = str(root)
        output = os.open(root / "mutants.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        import pytest

        options = ["-x", "-q", "-m", "not full", "-p", "no:cacheprovider", "-p", "no:xdist"]
        code = int(pytest.main([*options, *(f"tests/{name}" for name in tests)]))
    finally:
        os._exit(code)


def baselines(tree: Tree, mutants: Iterable[Mutant], timeout_s: float = 900) -> dict[tuple[str, ...], float]:
    """Seconds that each set of tests takes without any bug.

    Raises:
        ListError: a set fails, or holds no test.
    """
    seconds: dict[tuple[str, ...], float] = {}
    for tests in dict.fromkeys(mutant.tests for mutant in mutants):
        begin_s = time.monotonic()
        tree.start(tests, timeout_s)
        while (code := tree.poll()) is None:
            time.sleep(0.05)
        if code != 0:
            why = "hold no test" if code == NO_TESTS else "fail without any bug"
            raise ListError(f"tests {' '.join(tests)} {why}:\n{tree.log.read_text(errors='replace')[-3000:]}")
        seconds[tests] = time.monotonic() - begin_s
    return seconds


def try_all(
    trees: Sequence[Tree], mutants: Sequence[Mutant], least_s: float = 60, say: bool = True
) -> list[Outcome]:
    """Try every bug, one in each tree at a time."""
    usual_s = baselines(trees[0], mutants)
    waiting, running, outcomes = list(reversed(mutants)), {}, []
    while waiting or running:
        for tree in trees:
            if tree not in running and waiting:
                mutant = waiting.pop()
                tree.put_in(mutant)
                tree.start(mutant.tests, least_s + 5 * usual_s[mutant.tests])
                running[tree] = (mutant, time.monotonic())
        for tree, (mutant, begin_s) in list(running.items()):
            code = tree.poll()
            if code is None:
                continue
            del running[tree]
            outcomes.append(Outcome(mutant, code != 0, time.monotonic() - begin_s))
            if say:
                word = "noticed" if code else "NOT NOTICED"
                print(f"{word:<12} {outcomes[-1].seconds:5.1f} s  {mutant.file}: {mutant.name}", flush=True)
        time.sleep(0.02)
    return outcomes


def report(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
    """The rate of each room against its goal as a table, and whether every room has reached its own."""
    lines, good = [f"{'room':<16}{'tried':>6}{'noticed':>9}{'rate':>7}{'goal':>7}"], True
    for room in sorted({outcome.mutant.room for outcome in outcomes}):
        own = [outcome.noticed for outcome in outcomes if outcome.mutant.room == room]
        rate, goal = sum(own) / len(own), GOALS.get(room, GOAL)
        good = good and rate >= goal
        mark = "" if rate >= goal else "  below"
        lines.append(f"{room:<16}{len(own):>6}{sum(own):>9}{rate:>7.0%}{goal:>7.0%}{mark}")
    seen = sum(outcome.noticed for outcome in outcomes)
    lines.append(f"{'all':<16}{len(outcomes):>6}{seen:>9}{seen / len(outcomes):>7.0%}")
    lines += [f"not noticed: {o.mutant.file}: {o.mutant.name}" for o in outcomes if not o.noticed]
    return "\n".join(lines), good


def main(words: Sequence[str] | None = None) -> int:
    """Try the bugs that were asked for; 0 where every room reaches its goal."""
    parser = argparse.ArgumentParser(description="Count the known one-line bugs that the tests notice.")
    parser.add_argument(
        "--only", metavar="ROOM", action="append", default=[], help="of this room (repeatable)"
    )
    parser.add_argument("--name", metavar="TEXT", default="", help="only those with this text in their name")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, each in a copy of its own")
    parser.add_argument("--check", action="store_true", help="compare the list with the code; run no test")
    asked = parser.parse_args(words)
    try:
        mutants = [
            mutant
            for mutant in read_lists(LISTS)
            if (not asked.only or mutant.room in asked.only) and asked.name in mutant.name
        ]
        if asked.jobs < 1 or not mutants:
            raise ListError(
                "--jobs has to be at least 1" if asked.jobs < 1 else "no bug of the list is meant"
            )
        wrong = stale(ROOT, mutants)
        if wrong:
            raise ListError("\n".join(wrong))
        if asked.check:
            print(f"{len(mutants)} bugs fit the code")
            return 0
        for name in LIBRARIES:
            importlib.import_module(name)
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            trees = [Tree(ROOT, Path(folder) / str(number)) for number in range(asked.jobs)]
            text, good = report(try_all(trees, mutants))
    except ListError as error:
        print(f"mutants: error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
