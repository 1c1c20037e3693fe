"""Costs of an architecture's components at any size: shipped with it, cached, or counted now.

Counting is done by a child process without GPUs: neither an engine's changes to diffusers nor a process
group is in its way, and no torch is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.environment.cache import cache_folder
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Architecture, Component
from mlenergy.diffusion.models.spec import Dtype

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_TIME_LIMIT_S = 300
# What decides a count, beside the configuration and the libraries.
_HERE = Path(__file__).parent
COUNTING_CODE = (
    *(
        _HERE / f"{name}.py"
        for name in ("count", "fit", "inputs", "video_inputs", "kernels", "kernel_work", "shape")
    ),
    _HERE.parent / "weights" / "random" / "modules.py",
)


@dataclass(frozen=True)
class ComponentCosts:
    """Counts of one component; see `mlenergy.diffusion.cost.fit.count_costs` for their meaning."""

    name: str
    parameters: int
    buffers: int
    block_parameters: int
    float32_parameters: int
    flops: Mapping[str, float]
    activations: Mapping[str, Mapping[str, float]]
    # By the names of KernelWork; empty where they were not counted.
    kernels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    keeps_float32: bool = False  # those parameters stay so in bfloat16, too (in float16 they always do)

    def flops_at(self, rows: float, cells: float, text: float, frame: float = 0) -> float:
        """FLOPs of one call with that many rows, latent cells and text tokens.

        frame: latent cells of one frame, which the VAE of a video asks for.
        """
        return rows * _value(self.flops, cells, text, frame)

    def kernels_at(self, cells: float, text: float, frame: float = 0) -> dict[str, float]:
        """Work of one row of a call in bfloat16, by the names of `kernel_work.KernelWork`."""
        return {name: _value(terms, cells, text, frame) for name, terms in self.kernels.items()}

    def activation_bytes_at(
        self, rows: float, cells: float, text: float, itemsize: int, frame: float = 0
    ) -> int:
        """Peak bytes of activations of one call."""
        return round(rows * _value(self.activations[str(itemsize)], cells, text, frame))

    def parameter_bytes(self, dtype: Dtype, block_share: float = 1.0) -> int:
        """Bytes of weights and tables where only `block_share` of the repeated blocks is held."""
        held = self.parameters - self.block_parameters * (1 - block_share)
        is_kept = dtype == "float16" or self.keeps_float32
        wide = self.float32_parameters * (4 - BYTES[dtype]) if is_kept else 0
        return round((held + self.buffers) * BYTES[dtype]) + wide


def costs_of(architecture: Architecture, may_count: bool = True) -> dict[str, ComponentCosts]:
    """Costs of every component.

    may_count: allows a child process, which takes a few seconds, where they are neither shipped nor cached.

    Raises:
        UserError: a component that cannot be counted, or costs that would have to be counted and may not.
    """
    counts: Mapping[str, Any] = architecture.costs or _cached_or_counted(architecture, may_count)
    return {
        name: ComponentCosts(
            name=name,
            parameters=part["parameters"],
            buffers=part["buffers"],
            block_parameters=part["block_parameters"],
            float32_parameters=part["float32_parameters"],
            flops=part["flops"],
            activations=part["activation_bytes"],
            kernels=part.get("kernels", {}),
            keeps_float32=architecture.components[name].class_path.startswith("diffusers."),
        )
        for name, part in counts["components"].items()
    }


def check_predictable(plan: Plan) -> None:
    """Refuse to predict the needs of a pipeline of which only components and call are known.

    Raises:
        UserError: it is one of the generic family.
    """
    family = plan.spec.family
    if not family.has_cost_model and not family.is_generic:
        raise UserError(
            f"the memory and the work of {family.name} models are not predicted; a run measures the one and "
            "counts the other"
        )
    if family.is_generic:
        raise UserError(
            f"no family describes {plan.spec.family.pipeline_class}, so that its memory and work are not "
            "predicted; a run measures the one and counts the other"
        )


def needs_count(architecture: Architecture) -> bool:
    """True where the costs are neither shipped nor cached, so that asking for them starts a child process."""
    return not architecture.costs and _read(_entry(_request(architecture))) is None


def architecture_from_request(request: Mapping[str, Any]) -> Architecture:
    """The architecture that the child process is asked to count."""
    components = {name: Component(name, part[0], part[1]) for name, part in request["components"].items()}
    return Architecture(request["model_id"], request["pipeline"], components, {}, request["options"], {})


def _value(terms: Mapping[str, float], cells: float, text: float, frame: float) -> float:
    known = {
        "1": 1.0,
        "cells": cells,
        "cells2": cells * cells,
        "text": text,
        "text2": text * text,
        "cells*text": cells * text,
        "frame": frame,
        "frame2": frame * frame,
        "cells*frame": cells * frame,
        "frames": cells / frame if frame else 0.0,
    }
    return sum(factor * known[term] for term, factor in terms.items())


def _cached_or_counted(architecture: Architecture, may_count: bool) -> dict[str, Any]:
    request = _request(architecture)
    path = _entry(request)
    known = _read(path)
    if known is not None:
        return known
    if not may_count:
        raise UserError(
            "not counted yet for this model; a run without --no_count_flops or mlenergy plan counts it"
        )
    counted = _ask_child(request)
    _keep(path, counted)
    return counted


def _request(architecture: Architecture) -> dict[str, Any]:
    return {
        "model_id": architecture.model_id,
        "pipeline": architecture.pipeline_class,
        "options": dict(architecture.options),
        "components": {
            name: [part.class_path, dict(part.config)] for name, part in architecture.modules.items()
        },
    }


def _entry(request: Mapping[str, Any]) -> Path:
    """File in $XDG_CACHE_HOME/mlenergy/flops, by the configuration and the code; not by the model's name."""
    configuration = {key: value for key, value in request.items() if key != "model_id"}
    text = json.dumps(configuration, sort_keys=True) + _code()
    return cache_folder("flops") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@cache
def _code() -> str:
    """Hash of the libraries' versions and of the code that counts."""
    digest = hashlib.sha256()
    for library in ("torch", "diffusers", "transformers"):
        digest.update(f"{library}={version(library)};".encode())
    for source in COUNTING_CODE:
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
