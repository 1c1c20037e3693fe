"""The counting process: a request as JSON on stdin, the counts as one line of JSON on stdout.

`python -m mlenergy.diffusion.cost refresh` counts the package's own architectures anew and
writes their files (for maintainers, after a change of torch, diffusers or transformers).
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from mlenergy.diffusion.errors import UserError


def main(argv: list[str]) -> int:
    """Count what stdin asks for, or refresh the architecture files."""
    logging.disable(logging.WARNING)  # diffusers warns of every cast of a module
    if argv == ["refresh"]:
        from mlenergy.diffusion.cost.refresh import refresh

        return refresh()
    try:
        answer = _answer(json.load(sys.stdin))
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return 0


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from mlenergy.diffusion.cost.cached import architecture_from_request
    from mlenergy.diffusion.cost.count import count_workload
    from mlenergy.diffusion.cost.fit import count_costs
    from mlenergy.diffusion.cost.workload import Workload

    architecture = architecture_from_request(request)
    if request["kind"] == "costs":
        return count_costs(architecture)
    return dict(count_workload(architecture, Workload(**request["workload"])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
