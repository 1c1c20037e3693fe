"""Reading of weight files by the libraries: their switches, and how fast it was.

Files are mapped into memory, and each tensor goes from there to its device (and, where its type changes,
through a copy of itself alone): no process holds its weights twice, and the processes of a node share the
pages. So there is nothing to be gained from loading one rank after the other.

Transformers reads tensors by several threads anyhow (`HF_DEACTIVATE_ASYNC_LOAD` turns that off). Diffusers
reads the shards of a component one after the other, unless `HF_ENABLE_PARALLEL_LOADING` is set when it is
imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlenergy.diffusion.weights.files import total_bytes

_SWITCH = "HF_ENABLE_PARALLEL_LOADING"
_RECORD = "weights_read"


def read_shards_in_parallel() -> None:
    """Have diffusers read the shards of a component side by side; what the user has set stays.

    Call it before diffusers is imported.
    """
    os.environ.setdefault(_SWITCH, "YES")


def note_reading(
    model: object, files: Sequence[Path], seconds: float, shard_threads: int | None = None
) -> None:
    """Keep how a model's files were read, for `reading_of`.

    files: all that hold its weights; each counts once.
    seconds: from the call of the loader until the device has all weights.
    shard_threads: files of a component that were read at the same time, at most; None: as diffusers does.
    """
    files = list(dict.fromkeys(files))
    size = total_bytes(files)
    record = {
        "files": len(files),
        "bytes": size,
        "seconds": seconds,
        "bytes_per_s": size / seconds,
        "shard_threads": _shard_threads() if shard_threads is None else shard_threads,
        "text_encoder_threads": _tensor_threads(),
    }
    setattr(model, _RECORD, record)


def reading_of(model: object) -> dict[str, Any] | None:
    """Files, bytes, seconds and threads of reading a model; None for random weights."""
    found = getattr(model, _RECORD, None)
    return found if isinstance(found, dict) else None


def _shard_threads() -> int:
    """Shards of a component of diffusers that are read at the same time, at most."""
    from diffusers.models import model_loading_utils, modeling_utils

    is_parallel = modeling_utils.HF_ENABLE_PARALLEL_LOADING
    return int(model_loading_utils.DEFAULT_HF_PARALLEL_LOADING_WORKERS) if is_parallel else 1


def _tensor_threads() -> int:
    """Tensors of a component of transformers that are read at the same time, at most."""
    from transformers import core_model_loading as loading

    is_off = loading.is_env_variable_true("HF_DEACTIVATE_ASYNC_LOAD")
    return 1 if is_off else int(loading.GLOBAL_WORKERS)
