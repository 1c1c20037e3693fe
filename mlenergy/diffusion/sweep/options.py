"""Option names as a sweep file writes them, checked against the benchmark's own."""

from __future__ import annotations

import functools

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.argv import WORKLOAD
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.errors import UserError

BASE_DIR = "workload.base_dir"
MODEL = "workload.model_id"

# Options that a sweep sets itself.
_NOT_IN_A_SWEEP = {
    "dry_run": "use mlenergy sweep --print",
    "overwrite_results": "use mlenergy sweep --no_resume",
}


@functools.cache
def known_options() -> frozenset[str]:
    """Full names of all options: `ulysses_degree`, `workload.batch_size`, and `workload` itself."""
    return frozenset({*CommandLine.of(BenchmarkArgs).options, WORKLOAD})


def full_name(name: str) -> str:
    """An option's full name: hyphens become underscores, and `workload.` may be left out.

    Raises:
        UserError: the option does not exist, or a sweep cannot set it.
    """
    plain = str(name).strip().lstrip("-").replace("-", "_")
    for candidate in (plain, f"{WORKLOAD}.{plain}"):
        if candidate in _NOT_IN_A_SWEEP:
            raise UserError(f"a sweep cannot set {candidate}; {_NOT_IN_A_SWEEP[candidate]}")
        if candidate in known_options():
            return candidate
    meant = nearest(plain, [*known_options(), *(known.partition(".")[2] for known in known_options())])
    raise UserError(
        f"there is no option {name!r}; " + (f"did you mean {meant}?" if meant else "see mlenergy run --help")
    )
