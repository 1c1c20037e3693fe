"""The content of a results.json of any version, checked and flattened into a `ResultRecord`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.results.setup import (
    LONGEST_TEXT,
    compact_json,
    digest,
    hardware_of,
    joined,
    platform_of,
    settings_of,
    versions_of,
)
from mlenergy.diffusion.results.units import SCHEMA_VERSIONS, VIDEO, Unit, unit_of

_NEEDED = ("model_id", "completed", "generation_time")  # of every version
_LARGEST_INTEGER = 2**63 - 1

_NOT_IN_THE_RESULT = "not in this result"
_NO_FID = "FID was not computed; mlenergy quality computes it from the saved images"

_TEXTS = ("engine", "device", "device_name", "dtype", "dataset")  # of `configuration`
_NUMBERS = ("guidance_scale", "power_limit_w")
_COUNTS = (
    *("batch_size", "width_px", "height_px", "steps", "max_sequence_length", "seed"),
    *("num_frames", "fps"),
    *("warmup_iters", "benchmark_iters"),
)
_DEGREES = ("ulysses", "ring", "cfg", "data", "pipefusion", "tensor")
_OPTIMIZATIONS = ("compile_mode", "attention", "quantization", "cache", "offload", "scheduler")
_STAGES = ("text_encode", "denoise", "vae_decode", "other")


class NotAResultError(Exception):
    """The content is not that of a result that this version reads."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class _Part:
    """An object of the JSON, whose values are read with their types checked; an absent key reads as None."""

    def __init__(self, values: Any, where: str = "") -> None:
        if values is not None and not isinstance(values, Mapping):
            raise _wrong(where, values, "an object")
        self._values: Mapping[str, Any] = values or {}
        self._where = where

    def __bool__(self) -> bool:
        return bool(self._values)

    def part(self, key: str) -> _Part:
        return _Part(self._values.get(key), self._name(key))

    def parts(self, key: str) -> list[_Part]:
        values = self._values.get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            raise _wrong(self._name(key), values, "a list")
        return [_Part(value, f"{self._name(key)}[{i}]") for i, value in enumerate(values)]

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise _wrong(self._name(key), value, "a text")
        return plain_text(value)

    def number(self, key: str, least: float = -math.inf) -> float | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(self._name(key), value, "a number")
        if abs(value) > 1e300 or value != value:
            raise _wrong(self._name(key), value, "a finite number")
        if value < least:
            raise _wrong(self._name(key), value, f"{least:g} or more")
        return float(value)

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_INTEGER:
            raise _wrong(self._name(key), value, "a whole number")
        return value

    def flag(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise _wrong(self._name(key), value, "true or false")
        return value

    def names(self) -> list[str]:
        return [*self._values]

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def plain_text(value: str) -> str:
    """Text that every file format can hold: no half surrogate pairs, and not endless."""
    short = value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
    return short.encode("utf-8", "backslashreplace").decode()


def flatten(content: Any) -> dict[str, Any]:
    """Columns of a `ResultRecord` but place and state, from the content of a results.json.

    A key that the result's version lacks gives None, with a reason where the column has one.

    Raises:
        NotAResultError: the content is of another program, of a later version, or cannot be.
    """
    check_is_result(content)
    top, unit = _Part(content), unit_of(content)
    plan, environment = top.part("configuration"), top.part("environment")
    return {
        "schema_version": top.integer("schema_version") or 0,
        "schema_minor_version": top.integer("schema_minor_version") or 0,
        "date": top.text("date"),
        **_what_ran(top, plan),
        "unit": unit.name,
        **_where_it_ran(top, environment),
        **_times(top, unit),
        **_energy(top, unit),
        **(_video_figures(top) if unit == VIDEO else {}),
        **_other_figures(top),
        **_warnings(top),
        "setup_digest": digest(settings_of(content)),
        "platform_digest": digest(platform_of(content)),
    }


def check_is_result(content: Any) -> None:
    """Refuse what is not a result of a version that this program reads.

    Raises:
        NotAResultError: it is not.
    """
    if not isinstance(content, Mapping):
        raise NotAResultError("foreign", "not a result: its JSON is no object")
    version = content.get("schema_version", 0)
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSIONS[-1]:
        most = SCHEMA_VERSIONS[-1]
        newer = f"has schema version {version}, this program reads up to {most}; use a newer one"
        raise NotAResultError("newer", newer)
    if version in SCHEMA_VERSIONS and version != unit_of(content).schema_version:
        raise NotAResultError(
            "foreign", f"not a result: version {version} with unit {content.get('unit')!r:.40}"
        )
    lacking = [key for key in _NEEDED if key not in content]
    if lacking or version not in (0, *SCHEMA_VERSIONS) or isinstance(version, bool):
        which = f"it lacks {', '.join(lacking)}" if lacking else f"its schema_version is {version!r:.40}"
        raise NotAResultError("foreign", f"not a result of this program: {which}")


def _what_ran(top: _Part, plan: _Part) -> dict[str, Any]:
    model, parallel, knobs = plan.part("model"), plan.part("parallel"), plan.part("knobs")
    settings: dict[str, Any] = {name: plan.text(name) for name in _TEXTS}
    settings |= {name: plan.number(name) for name in _NUMBERS}
    settings |= {name: plan.integer(name) for name in _COUNTS}
    settings["batch_size"] = settings["batch_size"] or top.integer("batch_size")
    made = f"text-to-{unit_of(top._values).name}"
    settings["task"] = top.text("task") or plan.text("task") or made
    return {
        **settings,
        "model_id": top.text("model_id"),
        "weights": top.text("weights"),
        "family": model.text("family"),
        "pipeline_class": model.text("pipeline_class"),
        "parameters_count": model.integer("parameters") or _counted_parameters(top, parallel),
        "conditioning": model.text("conditioning") or ("text" if plan else None),
        "processes": parallel.integer("world_size"),
        **{f"{name}_degree": parallel.integer(name) for name in _DEGREES},
        "parallel_vae": parallel.flag("parallel_vae"),
        **{name: knobs.text(name) for name in _OPTIMIZATIONS},
        "settings_json": compact_json(settings_of(top._values)),
    }


def _counted_parameters(top: _Part, parallel: _Part) -> int | None:
    """Parameters of all components on a rank that holds them whole; None where ranks hold parts."""
    if any((parallel.integer(name) or 1) > 1 for name in ("pipefusion", "tensor")):
        return None
    for rank in top.part("memory").parts("ranks"):
        counts = rank.part("parameter_count")
        return sum(counts.integer(name) or 0 for name in counts.names()) or None
    return None


def _where_it_ran(top: _Part, environment: _Part) -> dict[str, Any]:
    versions, source = environment.part("versions"), environment.part("source")
    nodes = environment.parts("nodes")
    found = versions_of(top._values)
    return {
        "hostnames": joined(node.text("hostname") for node in nodes),
        "nodes_count": len(nodes) or None,
        "gpu_names": joined(gpu.text("name") for node in nodes for gpu in node.parts("gpus")),
        "program_version": source.text("version"),
        "program_commit": source.text("commit"),
        **{f"{name}_version": versions.text(name) for name in ("torch", "xfuser", "diffusers")},
        "cuda_version": environment.text("torch_cuda"),
        "driver_version": joined(node.text("driver") for node in nodes),
        "versions_json": compact_json(found),
        "hardware_json": compact_json(hardware_of(top._values)),
    }


def _times(top: _Part, unit: Unit) -> dict[str, Any]:
    count, total_s = top.integer("completed"), top.number("generation_time")
    if not count or count < 0 or not total_s or total_s < 0:
        raise NotAResultError("broken", f"{count} {unit.count} in {total_s} s cannot be")
    each = top.part("statistics").part(unit.time)
    half = each.number("ci95_half_width", least=0)
    reason = each.text("ci95_reason") if each else _NOT_IN_THE_RESULT
    loads = [rank.number("load_s", least=0) for rank in top.parts("load")]
    iterations = each.integer("count") or len(top.parts("iterations")) or None
    return {
        f"{unit.count}_count": count,
        "iterations_count": iterations,
        "generation_time_s": total_s,
        f"throughput_{unit.count}_per_s": count / total_s,
        f"time_per_{unit.name}_mean_s": total_s / count,
        f"time_per_{unit.name}_stdev_s": each.number("standard_deviation", least=0),
        f"time_per_{unit.name}_min_s": each.number("minimum", least=0),
        f"time_per_{unit.name}_max_s": each.number("maximum", least=0),
        f"time_per_{unit.name}_ci95_half_s": half,
        "time_interval_reason": None if half is not None else reason or _NOT_IN_THE_RESULT,
        "first_call_s": top.number("first_call_s", least=0),
        "load_s": max((s for s in loads if s is not None), default=None),
    }


def _energy(top: _Part, unit: Unit) -> dict[str, Any]:
    measured, each = top.part("energy_measurement"), top.part("statistics").part(unit.energy)
    total_j, count = top.number("total_energy_j", least=0), top.integer("completed") or 1
    reason: str | None = measured.text("reason") or _NOT_IN_THE_RESULT
    if total_j == 0:  # nothing is made for nothing
        total_j, reason = None, "the energy counter did not move: its period is longer than the windows"
    known = total_j is not None
    return {
        "energy_total_j": total_j,
        f"energy_per_{unit.name}_mean_j": None if total_j is None else total_j / count,
        f"energy_per_{unit.name}_stdev_j": each.number("standard_deviation", least=0) if known else None,
        f"energy_per_{unit.name}_ci95_half_j": each.number("ci95_half_width", least=0) if known else None,
        "energy_source": measured.text("energy_source"),
        "energy_reason": None if known else reason,
        "mean_power_w": measured.number("mean_power_w") if known else None,
        "cpu_package_energy_j": measured.number("cpu_package_j"),
    }


def _video_figures(top: _Part) -> dict[str, Any]:
    """Per frame and per second of video, computed anew from the counts, seconds and joules."""
    plan, count, total_s = top.part("configuration"), top.integer("completed"), top.number("generation_time")
    frames, rate = plan.integer("num_frames"), plan.integer("fps")
    if not frames or frames < 0 or not rate or rate < 0:
        raise NotAResultError("broken", f"videos of {frames} frames at {rate} frames per second cannot be")
    assert count and total_s  # _times has seen to that
    total_j, length_s = top.number("total_energy_j", least=0) or None, frames / rate
    return {
        "video_length_s": length_s,
        "throughput_frames_per_s": count * frames / total_s,
        "video_seconds_per_s": count * length_s / total_s,
        "real_time_factor": total_s / (count * length_s),
        "energy_per_frame_j": None if total_j is None else total_j / (count * frames),
        "energy_per_video_second_j": None if total_j is None else total_j / (count * length_s),
    }


def _other_figures(top: _Part) -> dict[str, Any]:
    memory, stages, quality = top.part("memory"), top.part("stages"), top.part("quality")
    efficiency, peak_gb = top.part("efficiency"), top.number("peak_memory_gb", least=0)
    means = {stage: stages.part(f"{stage}_s").number("mean") for stage in _STAGES}
    mfu, fid = top.number("mfu"), quality.number("fid", least=0)
    all_known = all(mean is not None for mean in means.values())
    return {
        "peak_memory_gb": peak_gb,
        "memory_reason": None if peak_gb is not None else memory.text("reason") or _NOT_IN_THE_RESULT,
        "tflops_per_gpu": top.number("tflops_per_gpu"),
        "mfu": mfu,
        "mfu_reason": None if mfu is not None else efficiency.text("mfu_reason") or _NOT_IN_THE_RESULT,
        **{f"{stage}_mean_s": mean for stage, mean in means.items()},
        "stages_reason": None if all_known else stages.text("reason") or _NOT_IN_THE_RESULT,
        "fid": fid,
        "fid_reason": None if fid is not None else quality.text("fid_reason") or _NO_FID,
        "fid_basis": None if fid is None else _basis(quality.part("metrics").part("fid")),
        **{name: quality.number(name) for name in ("kid", "clip_score", "lpips", "ssim", "psnr_db")},
    }


def _basis(fid: _Part) -> str | None:
    """Everything that two FIDs have to share to be compared: reference, network, inputs, number of images."""
    if not fid:
        return None
    reference, extractor = fid.part("reference"), fid.part("extractor")
    return (
        f"{fid.integer('images')} images against {(reference.text('sha256') or '')[:12]}, "
        f"{extractor.part('settings').text('preprocessing')}, {(extractor.text('sha256') or '')[:12]}"
    )


def _warnings(top: _Part) -> dict[str, Any]:
    found = [(one.text("code") or "unknown", one.text("message") or "") for one in top.parts("warnings")]
    return {
        "warning_codes": "\n".join(_one_line(code) for code, _ in found) or None,
        "warning_messages": "\n".join(_one_line(message) for _, message in found) or None,
    }


def _wrong(where: str, value: Any, expected: str) -> NotAResultError:
    return NotAResultError("broken", f"{where} is {ascii(value)[:40]}, not {expected}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
