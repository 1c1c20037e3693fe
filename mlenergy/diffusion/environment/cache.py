"""The folder of what this program keeps between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/mlenergy/NAME`, or `~/.cache/mlenergy/NAME` where that variable is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlenergy" / name
