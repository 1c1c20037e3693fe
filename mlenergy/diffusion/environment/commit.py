"""Which source code ran: the commit, and whether the files differ from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import mlenergy.diffusion


def source_state() -> dict[str, Any]:
    """Version, commit and ``dirty`` of the checkout that this package runs from.

    ``commit`` and ``dirty`` are None, with ``reason``, where there is no checkout
    (an installed wheel) or no git.
    """
    package = Path(mlenergy.diffusion.__file__).resolve().parent
    commit = _git(package, "rev-parse", "HEAD")
    # A wheel inside some other repository's virtual environment is not that repository's source.
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    if commit is None or tracked is None:
        reason = "this package does not run from a git checkout"
        return {"version": mlenergy.diffusion.__version__, "commit": None, "dirty": None, "reason": reason}
    changes = _git(package, "status", "--porcelain", "--untracked-files=normal", ".")
    return {
        "version": mlenergy.diffusion.__version__,
        "commit": commit,
        "dirty": bool(changes),
        "reason": None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails. No lock is taken, so ranks do not disturb each other."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
