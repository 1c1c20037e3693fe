"""Tiny random pipelines on disk: the models of the tests and the demo. No torch at import.

They are built from models/architectures/tiny/ as any architecture is, saved as any published model
is, and then loaded by the same code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from mlenergy.diffusion.environment.cache import cache_folder
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures import reader
from mlenergy.diffusion.models.architectures.reader import tiny_ids

# What decides the bytes of a folder, beside architectures and building code: the seeded
# weights are the same everywhere, but these libraries write the files.
_WRITERS = ("diffusers", "transformers", "tokenizers")


def tiny_folder(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of a tiny pipeline in diffusers' format; built first where it does not exist yet.

    cache_dir: where the folders lie; default $XDG_CACHE_HOME/mlenergy/tiny, or
    ~/.cache/mlenergy/tiny. The same versions give the same bytes on every machine.
    Safe to call from several processes: a folder appears whole or not at all.

    Raises:
        UserError: an unknown name, or a cache that cannot be written.
    """
    if name not in tiny_ids():
        raise UserError(f"unknown tiny model {name!r}; the known ones are: {', '.join(tiny_ids())}")
    root = cache_folder("tiny") if cache_dir is None else Path(cache_dir)
    target = root / f"{name.removeprefix('tiny/')}-{_fingerprint()}"
    if not target.is_dir():
        _build_aside(name, target)
    return target


def _fingerprint() -> str:
    """Hash of the tiny architectures, of the code that builds them and of the libraries that write them."""
    architectures = Path(reader.__file__).parent / "tiny"
    builders = Path(__file__).parent / "random"
    digest = hashlib.sha256()
    for source in (*sorted(architectures.glob("*.json")), *sorted(builders.glob("*.py"))):
        digest.update(source.name.encode() + source.read_bytes())
    for library in _WRITERS:
        digest.update(f"{library}={version(library)};".encode())
    return digest.hexdigest()[:12]


def _build_aside(name: str, target: Path) -> None:
    """Build in a folder beside the target, and rename it when it is whole."""
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
        try:
            aside.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster: its folder holds the same bytes
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _save(name: str, folder: Path) -> None:
    """Build the pipeline and write its files.

    Transformers writes on global rank 0 only once a process group is up, and says nothing on the
    others; the rank that builds may be another (the first of a second node). A child process is
    in no group.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        code = f"from {__name__} import _save, Path; _save({name!r}, Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return
    import torch  # only here: names and folders are asked for without it

    from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

    build_random_pipeline(name, "cpu", torch.float32).save_pretrained(folder, safe_serialization=True)
