"""The counting process: an architecture as JSON on stdin, its costs as one line of JSON on stdout.

`python -m mlenergy.diffusion.cost refresh [FILE ...]` counts the package's own architectures anew and
writes their files (for maintainers, after a change of torch, diffusers or transformers).
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from mlenergy.diffusion.cost.costs import architecture_from_request
from mlenergy.diffusion.cost.fit import count_costs
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures import reader

_MARK = ',\n  "costs": '


def main(argv: list[str]) -> int:
    """Count what stdin asks for, or refresh the architecture files."""
    logging.disable(logging.WARNING)  # diffusers warns of every cast of a module
    if argv[:1] == ["refresh"]:
        _refresh(argv[1:])
        return 0
    try:
        answer = count_costs(architecture_from_request(json.load(sys.stdin)))
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return 0


def _refresh(names: list[str]) -> None:
    """Count published and tiny architectures, all or those of the files named, and replace their costs."""
    for path in sorted(Path(reader.__file__).parent.rglob("*.json")):
        if names and path.name not in names:
            continue
        text = path.read_text(encoding="utf-8")
        costs = json.dumps(count_costs(reader.architecture(json.loads(text)["model_id"])), indent=2)
        # The costs are the last key, so that the hand-written part keeps its layout.
        written, mark, _old = text.partition(_MARK)
        if not mark:
            written = text.rstrip().removesuffix("}").rstrip()
        indented = costs.replace("\n", "\n  ")
        path.write_text(f"{written}{_MARK}{indented}\n}}\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
