"""A sweep file from a text, and the sweep it means."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.sweep.spec import SweepSpec, read_sweep


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write sweep.yaml into a folder of its own, which becomes the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        file = tmp_path / "sweep.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def sweep_spec(sweep_file: Callable[[str], Path]) -> Callable[[str], SweepSpec]:
    """The sweep that a text describes."""
    return lambda text: read_sweep(sweep_file(text))


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file of tests/golden/sweep."""

    def compare(name: str, text: str) -> None:
        file = Path(__file__).parents[1] / "golden" / "sweep" / name
        if os.environ.get("UPDATE_GOLDENS") == "1":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        lines = difflib.unified_diff(
            file.read_text().splitlines(), text.splitlines(), "golden", "now", lineterm=""
        )
        difference = "\n".join(lines)
        if difference:
            pytest.fail(f"{difference}\nto accept it: UPDATE_GOLDENS=1 pytest tests/sweep", pytrace=False)

    return compare
