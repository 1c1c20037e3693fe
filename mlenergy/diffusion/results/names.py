"""The name of a plan's result folder: readable, safe, and a different one for every set-up.

The name is a list of parts joined by `+`. The first parts are always there, the device and the sequence
degrees too; the others appear where a value differs from the default. Where the parts do not tell everything
exactly (a path, a shortened text, an unlisted model), `+id-` and a digest of the whole set-up end the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.letters import kept, start_of

# File systems take 255 bytes of a component; archives and encrypted folders less.
NAME_LIMIT_BYTES = 199
_TEXT_BYTES = 64  # of one free text in the name, in UTF-8
_DIGEST_LENGTH = 10

# What a name leaves out. These belong to the naming scheme, not to the command line: if a default of the
# program changes, a folder that was written before must not come to mean something else.
UNNAMED = {
    "engine": "xdit",
    "dataset": "open-image-preferences",
    "prompt_column": "prompt",
    "warmup_iters": 1,
    "benchmark_iters": 4,
    "save_images": True,
}

# Said by other parts (the spec by the model and its defaults, a preset by the options that it has come to),
# or no part of the set-up (where results go).
_SAID_ELSEWHERE = {"spec", "weights_from", "base_dir", "preset"}
# In the digest by their old name, "knobs", so that folders written before keep theirs.
_SAID_APART = {"optimizations"}


def folder_name(plan: Plan) -> str:
    """The plan's result folder, at most 199 bytes of letters, digits and `+-_.`."""
    parts = [*_always(plan), *_degrees(plan.parallel), *_differing(plan), *_later_fields(plan)]
    name = "+".join(f"{key}-{text}" if key else text for key, text, _ in parts)
    exact = all(is_exact for _, _, is_exact in parts)
    if exact and len(name.encode()) <= NAME_LIMIT_BYTES:
        return name
    ending = f"+id-{identity_digest(plan)}"
    return start_of(name, NAME_LIMIT_BYTES - len(ending)) + ending


def identity_digest(plan: Plan) -> str:
    """Hexadecimal digest of everything that makes two set-ups different."""
    text = json.dumps(identity(plan), sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def identity(plan: Plan) -> dict[str, Any]:
    """Everything that makes two set-ups different, as plain data: all but the place of the results."""
    model_id = plan.spec.model_id
    # A listed model's files follow from its id; the tiny ones lie in a cache that differs between machines.
    weights = model_id if model_id in BY_ID else plan.weights_from
    apart = _SAID_ELSEWHERE | _SAID_APART
    said = {name: value for name, value in _told_apart(plan).items() if name not in apart}
    same = {"parallel": _told_apart(plan.parallel), "knobs": _told_apart(plan.optimizations)}
    return {**said, "model_id": model_id, "weights_from": weights, **same}


def _told_apart(settings: Any) -> dict[str, Any]:
    """Fields by name, but for those that are younger than the digest and at their default."""
    values = {field: getattr(settings, field.name) for field in fields(settings)}
    return {
        field.name: value
        for field, value in values.items()
        if field.name in _IN_EVERY_DIGEST or value != _default(field)
    }


# A part: its key (empty where the text explains itself), its text, and whether the text is exact.
_Part = tuple[str, str, bool]


def _always(plan: Plan) -> list[_Part]:
    model_id = plan.spec.model_id
    model = model_id.replace("/", "-").replace(".", "_")
    listed = model_id in BY_ID  # their shortened forms are all different, which a test checks
    return [
        ("model", start_of(_safe(model), _TEXT_BYTES), listed and _safe(model) == model),
        ("batch", str(plan.batch_size), True),
        ("size", f"{plan.width_px}x{plan.height_px}", True),
        ("steps", str(plan.steps), True),
        ("guidance", _number(plan.guidance_scale), True),
        ("seed", str(plan.seed), True),
        ("device", *_device(plan)),
    ]


def _device(plan: Plan) -> tuple[str, bool]:
    """Type and name; the name tells all where its only odd characters were single spaces."""
    name = start_of(_safe(plan.device_name), _TEXT_BYTES)
    return f"{plan.device}-{name}", name.replace("_", " ") == plan.device_name


def _degrees(parallel: Parallelism) -> list[_Part]:
    parts: list[tuple[str, int, int | None]]
    parts = [("ulysses", parallel.ulysses, None), ("ring", parallel.ring, None)]
    parts += [("cfg", parallel.cfg, 1), ("data", parallel.data, 1), ("tensor", parallel.tensor, 1)]
    parts += [("pipefusion", parallel.pipefusion, 1)]
    patches = parallel.num_pipeline_patch
    parts += [("patches", patches, None)] if patches is not None else []
    parts += [("sync", parallel.pipefusion_warmup_steps, 1)]
    named = [(key, str(value), True) for key, value, unnamed in parts if value != unnamed]
    return [*named, *([("", "parallel-vae", True)] if parallel.parallel_vae else [])]


def _differing(plan: Plan) -> list[_Part]:
    spec = plan.spec
    shown: list[tuple[str, Any, Any, Callable[[Any], str]]] = [
        ("dtype", plan.dtype, spec.default_dtype, str),
        ("text", plan.max_sequence_length, spec.default_max_sequence_length, _number),
        ("engine", plan.engine, UNNAMED["engine"], str),
        ("warmup", plan.warmup_iters, UNNAMED["warmup_iters"], str),
        ("iters", plan.benchmark_iters, UNNAMED["benchmark_iters"], str),
        ("frames", plan.num_frames, None, str),
        ("fps", plan.fps, None, str),
        ("guidance-2", plan.guidance_scale_2, plan.spec.default_guidance_scale_2, _number),
        ("boundary", plan.boundary_ratio, plan.spec.default_boundary_ratio, _number),
        ("top-k", plan.top_k, None if spec.next_scale is None else spec.next_scale.top_k, str),
        ("top-p", plan.top_p, None if spec.next_scale is None else spec.next_scale.top_p, _number),
        ("images", plan.save_images, UNNAMED["save_images"], lambda saved: "saved" if saved else "none"),
    ]
    exact: list[_Part] = [(key, show(value), True) for key, value, unnamed, show in shown if value != unnamed]
    texts: list[tuple[str, str | None, Any]] = [
        ("revision", plan.revision, None),
        ("dataset", plan.dataset, _unnamed_dataset(plan)),
        ("column", plan.prompt_column, UNNAMED["prompt_column"]),
    ]
    named = [_text(key, value) for key, value, unnamed in texts if value is not None and value != unnamed]
    hashed = [("prefix", plan.prompt_prefix, ""), ("negative", plan.negative_prompt, None)]
    return [
        *exact,
        *named,
        *[(k, _digest(v), True) for k, v, unnamed in hashed if v != unnamed and v is not None],
    ]


def _unnamed_dataset(plan: Plan) -> Any:
    if plan.is_class_conditional:
        return "classes"
    return "evalcrafter" if plan.makes_video else UNNAMED["dataset"]


def _later_fields(plan: Plan) -> list[_Part]:
    """Fields that this file does not know are named by themselves, so that none is ever forgotten."""
    unknown: list[tuple[Any, Field[Any]]] = [(plan, f) for f in fields(plan) if f.name not in KNOWN_FIELDS]
    unknown += [(plan.parallel, f) for f in fields(plan.parallel) if f.name not in KNOWN_DEGREES]
    unknown += [(plan.optimizations, f) for f in fields(plan.optimizations)]
    values = [(f.name, getattr(owner, f.name), _default(f)) for owner, f in unknown]
    return [_value(name, value) for name, value, unnamed in values if value != unnamed]


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _value(key: str, value: Any) -> _Part:
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, tuple):
        return _text(key, "-".join(map(str, value)))
    if isinstance(value, float):
        return key, _number(value), True
    return key, start_of(_safe(str(value)), _TEXT_BYTES), isinstance(value, (bool, int))


def _text(key: str, value: str) -> _Part:
    safe = start_of(_safe(value), _TEXT_BYTES)
    return key, safe, safe == value


def _safe(text: str) -> str:
    """Only characters that need no care in a shell or on any file system; `+` separates parts."""
    return kept(text, "_.-")


def _number(value: float | None) -> str:
    """The shortest text that gives the number back; 7.0 is 7."""
    return "none" if value is None else repr(float(value)).removesuffix(".0")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


# Named, and younger than the digest.
_YOUNG_FIELDS = {"top_k", "top_p", "num_frames", "fps", "guidance_scale_2", "boundary_ratio"}
# Every field of a Plan and of its degrees that the parts above name.
KNOWN_DEGREES = {
    "data",
    "cfg",
    "pipefusion",
    "ring",
    "ulysses",
    "tensor",
    "num_pipeline_patch",
    "pipefusion_warmup_steps",
    "parallel_vae",
}
KNOWN_FIELDS = _SAID_ELSEWHERE | {
    "revision",
    "engine",
    "device",
    "device_name",
    "parallel",
    "dtype",
    "batch_size",
    "height_px",
    "width_px",
    "steps",
    "guidance_scale",
    "negative_prompt",
    "max_sequence_length",
    "seed",
    "dataset",
    "prompt_column",
    "prompt_prefix",
    "warmup_iters",
    "benchmark_iters",
    "save_images",
    "optimizations",
    *_YOUNG_FIELDS,
}
# Fields that every digest holds. One that is added later joins it where it is not at its default, so that
# folders written before keep their names.
_IN_EVERY_DIGEST = (
    (KNOWN_FIELDS - _YOUNG_FIELDS)
    | KNOWN_DEGREES
    | {
        "target_ci",
        "max_iters",
        "energy_gpus",
        "power_limit_w",
        "use_resolution_binning",
        "variant",
        "lora",
        "allow_pickle",
        "trust_remote_code",
        "weights",
        "compile_mode",
        "attention",
        "quantization",
        "layerwise_fp8",
        "fp8_t5_encoder",
        "offload",
        "attention_slicing",
        "vae_slicing",
        "vae_tiling",
        "cache",
        "cache_threshold",
        "scheduler",
    }
)
