"""Make docs/capabilities.md from the parity tests' results; with --measure, run the cases first.

Without options it makes the page from tests/parity/results.json alone. With --measure both are made
anew, some minutes on two cores; --only "sdxl|ring" measures the cases with such names and keeps the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from parity_cases import EVERYTHING  # noqa: E402  # found through the line above
from parity_page import render  # noqa: E402
from parity_run import RESULTS, build_tiny_models, run_worker  # noqa: E402

PAGE = ROOT / "docs" / "capabilities.md"
PACKAGES = ("xfuser", "yunchang", "DistVAE", "diffusers", "transformers", "torch")


def main() -> None:
    """Write the page, and the results where they are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="run every parity case and keep the results")
    parser.add_argument("--only", default="", metavar="PATTERN", help="with --measure: names of cases")
    options = parser.parse_args()
    if options.measure:
        RESULTS.write_text(json.dumps(measured(options.only), indent=1) + "\n")
    PAGE.write_text(render(json.loads(RESULTS.read_text())))
    print(f"wrote {PAGE.relative_to(ROOT)}")


def measured(pattern: str) -> dict[str, Any]:
    """Every case's outcome, without what changes from one machine to the next.

    pattern: of the names to run; the other cases keep the results they have.
    """
    build_tiny_models()
    chosen = [case for case in EVERYTHING if re.search(pattern, case.name)]
    found: dict[str, Any] = json.loads(RESULTS.read_text())["cases"] if pattern else {}
    with tempfile.TemporaryDirectory() as folder:
        for world_size in sorted({case.world_size for case in chosen}):
            print(f"running the cases of {world_size} processes", flush=True)
            new = run_worker(world_size, Path(folder) / f"{world_size}.json", pattern)
            found |= {name: kept(outcome) for name, outcome in new.items()}
    return {
        "versions": {package: version(package).partition("+")[0] for package in PACKAGES},
        "cases": {case.name: found[case.name] for case in EVERYTHING},
    }


def kept(outcome: dict[str, Any]) -> dict[str, Any]:
    """Differences to two digits, or the kind of the first error that is not of the network."""
    if float("inf") in outcome.get("differences", ()):  # JSON has no word for it
        return {"error": "no numbers, or another shape"}
    if "differences" in outcome:
        return {"differences": [float(f"{difference:.2g}") for difference in outcome["differences"]]}
    kinds = re.findall(r"(?:^|\| )(\w+): (?!\[)", outcome["error"])
    return {"error": kinds[0] if kinds else outcome["error"]}


if __name__ == "__main__":
    main()
