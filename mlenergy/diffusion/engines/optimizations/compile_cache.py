"""The folder of compiled code that later runs find again."""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from mlenergy.diffusion.environment.cache import cache_folder

# Torch reads it before it writes or looks up anything; Triton's folder lies in this one.
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_PACKAGES = ("torch", "triton", "diffusers")


class CompileCache:
    """Gives torch's compiler a folder, and counts what it has found there.

    is_kept: a folder of these versions and this device, kept for later runs, or the one that
        TORCHINDUCTOR_CACHE_DIR names; else an empty one that goes with this object.
    """

    _given: str | None = None  # what this class has put into the variable: no wish of the user's

    def __init__(self, device_name: str, *, is_kept: bool) -> None:
        asked = os.environ.get(_VARIABLE)
        if asked in (CompileCache._given, default_cache_dir()):
            asked = None  # torch writes its own default there, too
        self._temporary = None if is_kept else tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        if self._temporary is not None:
            self.folder = self._temporary.name
        else:
            self.folder = asked or str(cache_folder("compiled") / key_of(device_name))
        if asked != self.folder:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            os.environ[_VARIABLE] = CompileCache._given = self.folder
        self._is_kept = is_kept
        self._begin = _counted()

    def record(self) -> dict[str, Any]:
        """Folder, None where it is not kept; graphs that were found in it, and that were not."""
        new = {name: count - self._begin[name] for name, count in _counted().items()}
        return {
            "folder": self.folder if self._is_kept else None,
            "hits": max(new["autograd_cache_hit"], new["fxgraph_cache_hit"]),
            "misses": max(
                new["autograd_cache_miss"] + new["autograd_cache_bypass"],
                new["fxgraph_cache_miss"] + new["fxgraph_cache_bypass"],
            ),
        }


def key_of(device_name: str) -> str:
    """Name of the folder for the installed versions and a device: code of others would not fit."""
    parts = [f"{name}-{_version(name)}" for name in _PACKAGES] + [device_name]
    return "+".join("".join(c if c.isalnum() or c in "-._" else "_" for c in part) for part in parts)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _counted() -> dict[str, int]:
    """Lookups of this process so far.

    The cache of whole graphs (AOTAutograd's) asks first, and inductor's own inside: a graph counts in both.
    """
    return {
        f"{cache}_cache_{outcome}": int(counters[group][f"{cache}_cache_{outcome}"])
        for group, cache in (("aot_autograd", "autograd"), ("inductor", "fxgraph"))
        for outcome in ("hit", "miss", "bypass")
    }
