"""The door to xfuser: nothing is imported early, and only the known version gets in."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from mlenergy.diffusion.engines.xdit import importing
from mlenergy.diffusion.errors import UserError


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_room_of_engines_imports_neither_torch_nor_xfuser() -> None:
    program = (
        "import sys; from mlenergy.diffusion.engines import load_engine;"
        "print([name for name in ('torch', 'xfuser', 'diffusers') if name in sys.modules])"
    )
    assert run(program) == "[]"


@pytest.mark.parametrize("version", ["0.6.0", "0.7.1", "0.8.0"])
def test_another_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(UserError, match=rf"xfuser {version} is installed.*pip install xfuser==0\.7\.0"):
        importing.installed_version()


def test_a_missing_xfuser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match="xfuser is not installed"):
        importing.installed_version()


def test_xfuser_is_usable_on_a_cpu_and_says_nothing_on_stdout() -> None:
    program = """
import logging
from mlenergy.diffusion.engines.xdit import cpu, importing
importing.use_our_logging()
cpu.adapt()
first = __import__("xfuser.envs").envs.get_device_version
cpu.adapt()
import xfuser
from xfuser.config import xFuserArgs
logging.getLogger("xfuser.core").warning("a line for the log")
print(xfuser.envs.get_device_version is first, xfuser.envs.get_device(0))
"""
    assert run(program) == "True cpu"
