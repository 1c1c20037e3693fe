"""docs/measuring.md explains every warning that there is."""

from __future__ import annotations

import re
from pathlib import Path

from mlenergy.diffusion.measure.energy import warnings as trust

ROOT = Path(__file__).resolve().parents[2]


def test_every_warning_code_is_in_the_table_and_none_more():
    package = ROOT / "mlenergy/diffusion"
    files = [*(package / "measure").rglob("*.py"), package / "run.py"]
    code = "".join(path.read_text() for path in files)
    given = set(re.findall(r'MeasurementWarning\(\s*"(\w+)"', code)) | set(trust._MEANING)
    text = (ROOT / "docs/measuring.md").read_text().split("## Warnings")[1]
    explained = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert given == explained
