"""Writes the counted costs into the package's own architecture files."""

from __future__ import annotations

import json
from pathlib import Path

from mlenergy.diffusion.cost.fit import count_costs
from mlenergy.diffusion.models.architectures import reader as _reader
from mlenergy.diffusion.models.architectures.reader import architecture

_MARK = ',\n  "costs": '


def refresh() -> int:
    """Count every listed architecture and replace its file's costs; returns 0."""
    for path in sorted(Path(_reader.__file__).parent.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        costs = count_costs(architecture(json.loads(text)["model_id"]))
        # The costs are the last key, so that the hand-written part keeps its layout.
        written, mark, _old = text.partition(_MARK)
        if not mark:
            written = text.rstrip().removesuffix("}").rstrip()
        path.write_text(f"{written}{_MARK}{_lines(costs)}\n}}\n", encoding="utf-8")
        print(path.name)
    return 0


def _lines(costs: dict[str, object]) -> str:
    return json.dumps(costs, indent=2).replace("\n", "\n  ")
