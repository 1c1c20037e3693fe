"""The runner of known bugs, on a tree of one function, one good test of it and one that cannot fail."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutants.py"
# As the script, without the libraries that these small tests have no use for.
CALL = "import sys, mutants; mutants.LIBRARIES = ('pytest',); sys.exit(mutants.main(sys.argv[1:]))"
ADD = "def add(a, b):\n    return a + b\n"
TEST = "from mlenergy.diffusion.measure.sums import add\n\n\ndef test_add():\n    assert add(2, 0) == 2\n"
BUGS = {"a sign": ("a + b", "a - b - 1"), "a factor": ("a + b", "a + 2 * b")}


def bug(name, old, new, tests='["measure"]'):
    entry = f'[[mutant]]\nname = "{name}"\nkind = "sum"\nfile = "measure/sums.py"\n'
    return f'{entry}old = "{old}"\nnew = "{new}"\ntests = {tests}\n'


@pytest.fixture
def tree(tmp_path):
    files = {
        "mlenergy/diffusion/__init__.py": "",
        "mlenergy/diffusion/measure/__init__.py": "",
        "mlenergy/diffusion/measure/sums.py": ADD,
        "tests/measure/test_sums.py": TEST,
        "tests/mutants/measure.toml": "".join(bug(name, *texts) for name, texts in BUGS.items()),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    return tmp_path


def run(tree, *words):
    """Run the script in the tree."""
    command = [sys.executable, "-c", CALL, *words]
    return subprocess.run(command, cwd=tree / "scripts", capture_output=True, text=True, timeout=120)


def loaded():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("mutants_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_script"] = module
    spec.loader.exec_module(module)
    return module


def rewrite(tree, text):
    (tree / "tests" / "mutants" / "measure.toml").write_text(text)


def test_noticed_and_not_noticed_are_counted_and_the_tree_stays_as_it_is(tree):
    done = run(tree, "--jobs", "2")
    assert done.returncode == 1, done.stderr  # below the goal
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["measure", "2", "1", "50%", "95%", "below"] in rows
    assert done.stdout.splitlines()[-1] == "not noticed: measure/sums.py: a factor"
    assert (tree / "mlenergy/diffusion/measure/sums.py").read_text() == ADD
    assert not list(tree.rglob("mutants.log"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (bug("gone", "a * b", "a"), "gone: its old text is 0 times in measure/sums.py, not once"),
        (bug("twice", "b", "c"), "twice: its old text is 2 times"),
        (bug("same", "a + b", "a + b"), "same: its old text is 1 times"),
        (bug("lost", "a + b", "a", '["results/test_x.py"]'), "lost: there is no tests/results/test_x.py any"),
        (bug("one", "a + b", "a") * 2, "two bugs have one name: one"),
        (bug("one", "a + b", "a") + "size = 3\n", "measure.toml, entry 1: "),
    ],
)
def test_a_list_that_does_not_fit_the_code_is_refused(tree, capsys, monkeypatch, text, line):
    rewrite(tree, text)
    mutants = loaded()
    monkeypatch.setattr(mutants, "ROOT", tree)
    monkeypatch.setattr(mutants, "LISTS", tree / "tests" / "mutants")
    assert mutants.main(["--check"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mutants: error: ") and line in said


@pytest.mark.full
def test_tests_that_fail_without_a_bug_notice_nothing(tree):
    (tree / "tests" / "measure" / "test_sums.py").write_text(TEST.replace("== 2", "== 3"))
    done = run(tree, "--name", "a sign")
    assert done.returncode == 2
    assert "tests measure fail without any bug" in done.stderr


def test_a_room_without_a_bug_is_an_error(capsys):
    assert loaded().main(["--only", "no such room"]) == 2
    assert "no bug of the list is meant" in capsys.readouterr().err
