"""A whole pipeline at its published size, without a download: random weights, real shapes."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline

from mlenergy.diffusion.models.architectures.reader import Architecture, Component, architecture
from mlenergy.diffusion.weights.random.fill import draw_by_name, draw_in_order, materialise
from mlenergy.diffusion.weights.random.heads import follow_input
from mlenergy.diffusion.weights.random.modules import component_class, empty_module
from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

_REPORT = "random_start"
_SAMPLED = 256  # values of each parameter that the fingerprint reads


@dataclass(frozen=True)
class RandomStart:
    """The cost of building a random pipeline."""

    build_s: float
    component_s: dict[str, float]
    host_rss_peak_bytes: int  # of this process, from its begin to the pipeline's end
    parameters: dict[str, int]  # component -> count, tied ones once
    parameter_bytes: dict[str, int]
    seed: int
    fingerprint: str  # of the values: equal on two ranks that hold the same weights

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the results."""
        return asdict(self)


def build_random_pipeline(
    model: str | Architecture,
    device: torch.device | str,
    dtype: torch.dtype,
    seed: int = 0,
    tokenizers: Mapping[str, Any] | None = None,
) -> DiffusionPipeline:
    """The pipeline of a listed model id (or of an architecture) with seeded random weights.

    Components are built one after the other: shapes on the meta device, then each parameter
    straight on `device` in `dtype`. Nothing is held twice. `start_report` has the seconds and bytes.
    seed: of all components but a tiny model's, which have seeds of their own.
    tokenizers: name -> tokenizer; None builds those of the architecture.

    Raises:
        UserError: no architecture of that id; a class that the installed libraries do not have.
    """
    started = time.perf_counter()
    model = architecture(model) if isinstance(model, str) else model
    place = torch.device(device)
    parts: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, part in model.modules.items():
        begun = time.perf_counter()
        parts[name] = _module(model, part, place, dtype, seed)
        seconds[name] = time.perf_counter() - begun
    modules = dict(parts)
    parts |= tokenizers or {name: build_tokenizer(wanted) for name, wanted in model.tokenizers.items()}
    parts |= {name: _plain(part) for name, part in model.components.items() if not part.is_module}
    pipeline = component_class(f"diffusers.{model.pipeline_class}")(**_accepted(model, parts))
    _synchronize(place)
    setattr(pipeline, _REPORT, _report(started, seconds, modules, seed))
    assert isinstance(pipeline, DiffusionPipeline)
    return pipeline


def note_start(model: object, started: float, modules: Mapping[str, torch.nn.Module], seed: int = 0) -> None:
    """Keep the cost of building a model that is no pipeline of diffusers, for `start_report`.

    started: by time.perf_counter().
    """
    for module in modules.values():
        _synchronize(next(module.parameters()).device)
    setattr(model, _REPORT, _report(started, {}, modules, seed))


def start_report(pipeline: object) -> RandomStart | None:
    """The cost of building it; None for a pipeline that was loaded."""
    found = getattr(pipeline, _REPORT, None)
    return found if isinstance(found, RandomStart) else None


def _module(
    model: Architecture, part: Component, device: torch.device, dtype: torch.dtype, seed: int
) -> torch.nn.Module:
    with _default_dtype(dtype):  # as loaders do: tables that no file holds are made in it
        empty = empty_module(part)
    if part.seed is not None:
        return materialise(empty, device, dtype, draw_in_order(part.seed))
    module = materialise(empty, device, dtype, draw_by_name(seed, part.name))
    if part is model.denoiser and _predicts_noise(model):
        follow_input(module)
    return module


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _predicts_noise(model: Architecture) -> bool:
    scheduler = model.components["scheduler"]
    flow = scheduler.class_name.startswith("FlowMatch")
    return not flow and scheduler.config.get("prediction_type", "epsilon") == "epsilon"


def _plain(part: Component) -> Any:
    """A scheduler or a guider."""
    return component_class(part.class_path)(**part.config)


def _accepted(model: Architecture, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts and options; what the class wants beside them (a safety checker) is left out as None."""
    cls = component_class(f"diffusers.{model.pipeline_class}")
    required, optional = cls._get_signature_keys(cls)
    missing = {name: None for name in required if name not in parts}
    options = {name: value for name, value in model.options.items() if name in optional}
    return {**missing, **parts, **options}


def _report(
    started: float, seconds: dict[str, float], modules: Mapping[str, torch.nn.Module], seed: int
) -> RandomStart:
    unit = 1 if sys.platform == "darwin" else 1024
    values = {name: list(module.parameters()) for name, module in modules.items()}
    fingerprint = _fingerprint(values)
    return RandomStart(
        build_s=time.perf_counter() - started,
        component_s=seconds,
        host_rss_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        parameters={name: sum(p.numel() for p in ps) for name, ps in values.items()},
        parameter_bytes={name: sum(p.nbytes for p in ps) for name, ps in values.items()},
        seed=seed,
        fingerprint=fingerprint,
    )


def _fingerprint(values: Mapping[str, list[torch.nn.Parameter]]) -> str:
    """Hash of the first values of every parameter; one transfer a component."""
    digest = hashlib.sha256()
    for name, parameters in values.items():
        heads = [parameter.detach().flatten()[:_SAMPLED].float() for parameter in parameters]
        digest.update(name.encode() + torch.cat(heads).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
