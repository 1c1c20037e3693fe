"""Where tiny pipelines are kept, and how they get there whole: no torch at module level."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError

PREFIX = "tiny/"

# Name -> module of this package and its function that returns the pipeline.
_BUILDERS = {
    "tiny/flux": ("flux", "build"),
    "tiny/sd3": ("sd3", "build"),
    "tiny/sd3.5": ("sd3", "build_dual"),
    "tiny/pixart-alpha": ("pixart", "build_alpha"),
    "tiny/pixart-sigma": ("pixart", "build_sigma"),
    "tiny/hunyuandit": ("hunyuandit", "build"),
    "tiny/sdxl": ("sdxl", "build"),
    "tiny/sd1.5": ("sd15", "build"),
}

# What decides the bytes of a folder, beside the builders' own source: the seeded
# weights are the same everywhere, but these libraries write the files.
_WRITERS = ("diffusers", "transformers", "tokenizers")


def tiny_names() -> list[str]:
    """Names that `tiny_folder` takes, for example "tiny/flux"."""
    return list(_BUILDERS)


def is_tiny(name: str) -> bool:
    """Whether a model id names a tiny pipeline (a known one or not)."""
    return name.startswith(PREFIX)


def tiny_folder(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of a tiny pipeline in diffusers' format; built first where it is not there yet.

    cache_dir: where the folders lie; default $XDG_CACHE_HOME/mlenergy/tiny, or
    ~/.cache/mlenergy/tiny. The same versions give the same bytes on every machine.
    Safe to call from several processes: a folder appears whole or not at all.

    Raises UserError for an unknown name and for a cache that cannot be written.
    """
    if name not in _BUILDERS:
        raise UserError(f"unknown tiny model {name!r}; there are: {', '.join(_BUILDERS)}")
    root = Path(cache_dir) if cache_dir is not None else _default_cache()
    target = root / f"{name.removeprefix(PREFIX)}-{_fingerprint()}"
    if not target.is_dir():
        _build_aside(name, target)
    return target


def _default_cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "mlenergy" / "tiny"


def _fingerprint() -> str:
    """Hash of the builders' source and of the libraries that write the files."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    for library in _WRITERS:
        digest.update(f"{library}={version(library)};".encode())
    return digest.hexdigest()[:12]


def _build_aside(name: str, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write the tiny model's cache {target.parent} ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    try:
        _save(name, aside)
        aside.chmod(0o755)  # mkdtemp's folders are private; other users of a shared cache read it too
        _rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _save(name: str, folder: Path) -> None:
    """Build and write the files.

    Transformers writes on global rank 0 only once a process group is up, and says nothing on the
    others; the rank that builds may be another (the first of a second node). A child process is
    in no group.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        code = f"from {__name__} import _save, Path; _save({name!r}, Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    else:
        _built(name).save_pretrained(folder, safe_serialization=True)


def _built(name: str) -> Any:
    """The pipeline; its type is diffusers', which is not imported up here."""
    module, function = _BUILDERS[name]
    return getattr(importlib.import_module(f"mlenergy.diffusion.weights.tiny.{module}"), function)()


def _rename(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():  # another process came first: its folder holds the same bytes
            raise
