"""docs/measuring.md explains every warning that there is."""

from __future__ import annotations

import re
from pathlib import Path

from mlenergy.diffusion.measure.energy import warnings as trust

ROOT = Path(__file__).resolve().parents[2]


def test_every_warning_code_is_in_the_table_and_none_more():
    rooms = [ROOT / "mlenergy/diffusion" / room for room in ("measure", "supervision")]
    code = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    given = set(re.findall(r'MeasurementWarning\(\s*"(\w+)"', code)) | set(trust._MEANING)
    text = (ROOT / "docs/measuring.md").read_text().split("## Warnings")[1]
    explained = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert given == explained
