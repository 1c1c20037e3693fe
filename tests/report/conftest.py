"""Golden texts: `UPDATE_GOLDENS=1 pytest tests/report` writes them anew."""

import os
from difflib import unified_diff
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "report"


@pytest.fixture
def golden():
    """Compare a text with its snapshot; a failure prints the difference and how to accept it."""

    def check(name: str, text: str) -> None:
        file = GOLDEN / name
        if os.environ.get("UPDATE_GOLDENS") == "1":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        stored = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = unified_diff(stored.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="")
        difference = "\n".join(lines)
        if stored != text:
            pytest.fail(f"{difference}\nto accept it: UPDATE_GOLDENS=1 pytest tests/report", pytrace=False)

    return check
