"""Counting in a process of its own, and its results on disk: no torch in this process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.cost.workload import Workload
from mlenergy.diffusion.environment.cache import cache_folder
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Architecture, Component

Kind = Literal["workload", "costs"]
_TIME_LIMIT_S = 300


def counted_workload(architecture: Architecture, workload: Workload) -> dict[str, int]:
    """FLOPs of text_encode, denoise_step and vae_decode of one call, over all ranks together.

    Counted by a child process without GPUs (neither an engine's changes to diffusers nor a
    process group is in its way) the first time, read from the cache afterwards.

    Raises:
        UserError: the pipeline has a component that cannot be counted.
    """
    return _counted("workload", architecture, workload.as_dict())


def counted_costs(architecture: Architecture) -> dict[str, Any]:
    """What an architecture costs at any size; see `fit.count_costs`. Cached in the same way.

    Raises:
        UserError: the pipeline has a component that cannot be counted.
    """
    return _counted("costs", architecture, {})


def known_costs(architecture: Architecture) -> dict[str, Any] | None:
    """What `counted_costs` would give, where that needs no counting; None elsewhere."""
    return dict(architecture.costs) or _read(_entry(_request("costs", architecture, {})))


def architecture_from_request(request: dict[str, Any]) -> Architecture:
    """The architecture that `_request` wrote down."""
    components = {name: Component(name, part[0], part[1]) for name, part in request["components"].items()}
    return Architecture(request["model_id"], request["pipeline"], components, {}, request["options"], {})


def _counted(kind: Kind, architecture: Architecture, workload: dict[str, Any]) -> dict[str, Any]:
    request = _request(kind, architecture, workload)
    path = _entry(request)
    known = _read(path)
    if known is not None:
        return known
    counted = _ask_child(request)
    _keep(path, counted)
    return counted


def _request(kind: Kind, architecture: Architecture, workload: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "model_id": architecture.model_id,
        "pipeline": architecture.pipeline_class,
        "options": dict(architecture.options),
        "components": {
            name: [part.class_path, dict(part.config)] for name, part in architecture.modules.items()
        },
        "workload": workload,
    }


def _entry(request: dict[str, Any]) -> Path:
    return cache_folder("flops") / f"{_key(request)}.json"


def _key(request: dict[str, Any]) -> str:
    """Hash of the configuration, of the libraries and of the counting code; not of the model's name."""
    known = {key: value for key, value in request.items() if key != "model_id"}
    return hashlib.sha256((json.dumps(known, sort_keys=True) + _code()).encode()).hexdigest()[:32]


@cache
def _code() -> str:
    digest = hashlib.sha256()
    for library in ("torch", "diffusers", "transformers"):
        digest.update(f"{library}={version(library)};".encode())
    here = Path(__file__).parent
    for source in (*sorted(here.glob("*.py")), here.parent / "weights" / "random" / "modules.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _ask_child(request: dict[str, Any]) -> dict[str, Any]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "mlenergy.diffusion.cost"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"counting FLOPs took more than {_TIME_LIMIT_S} s; run again on a less busy machine"
        ) from error
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        reason = child.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"counting FLOPs failed: {reason[0]}") from error
    if "error" in answer:
        raise UserError(answer["error"])
    return dict(answer)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or torn: count again
    return value if isinstance(value, dict) else None


def _keep(path: Path, counted: dict[str, Any]) -> None:
    """Whole or not at all; a cache that cannot be written only costs the next run's time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(counted, file)
        Path(file.name).replace(path)
    except OSError:
        return
