"""Settings, versions and hardware as flat plain data: equal ones make two results repeats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_TEXT = 1000  # characters

# No part of a set-up: where the results lie; the preset, whose options are settings themselves.
_NO_SETTING = ("base_dir", "preset")
_DEGREES = ("ulysses", "ring", "cfg", "data", "pipefusion", "tensor")
# Names of the command line, where results have others.
_NAMES = {f"parallel.{name}": f"{name}_degree" for name in _DEGREES} | {
    "parallel.world_size": "processes",
    "parallel.parallel_vae": "parallel_vae",
    "parallel.num_pipeline_patch": "num_pipeline_patch",
    "parallel.pipefusion_warmup_steps": "warmup_steps",
}


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a result by its name, flat: what makes two set-ups different."""
    configuration = content.get("configuration")
    plan = configuration if isinstance(configuration, Mapping) else {}
    settings = _flat({key: value for key, value in plan.items() if key not in _NO_SETTING}, "")
    settings |= {"model_id": content.get("model_id"), "weights": content.get("weights")}
    return {_NAMES.get(key, key.removeprefix("knobs.")): _short(value) for key, value in settings.items()}


def versions_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every version that a result names; None: not installed, or not known."""
    environment = _mapping(content.get("environment"))
    source = _mapping(environment.get("source"))
    drivers = {str(node.get("driver")) for node in _nodes(environment) if node.get("driver")}
    return {
        **{str(name): version for name, version in _mapping(environment.get("versions")).items()},
        "program": source.get("version"),
        "commit": source.get("commit"),
        "torch_cuda": environment.get("torch_cuda"),
        "python": environment.get("python"),
        "driver": ", ".join(sorted(drivers)) or None,
    }


def hardware_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """GPUs and processors of the nodes that a result ran on; hosts' names are no part of it."""
    nodes = _nodes(_mapping(content.get("environment")))
    gpus = [gpu for node in nodes for gpu in _list(node.get("gpus"))]
    return {
        "nodes": len(nodes) or None,
        "cpu": joined(node.get("cpu") for node in nodes),
        "cpu_cores": joined(node.get("cpu_cores_usable") for node in nodes),
        "gpus": joined(gpu.get("name") for gpu in gpus),
        "gpu_power_limit_w": joined(gpu.get("power_limit_w") for gpu in gpus),
    }


def platform_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and hardware: results that differ in these are no repeats of each other."""
    device_name = _mapping(content.get("configuration")).get("device_name")
    return {**versions_of(content), **hardware_of(content), "device_name": device_name}


def digest(values: Mapping[str, Any]) -> str:
    """Hexadecimal digest of plain data."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compact_json(values: Mapping[str, Any]) -> str:
    """Plain data as one line, equal for equal values."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True, default=repr, separators=(",", ":"))


def joined(values: Any) -> str | None:
    """The different values in order, as one text; None where there are none."""
    return ", ".join(sorted({str(value) for value in values if value is not None})) or None


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> Any:
    """A setting; of a long text its beginning and a digest, so that two long texts stay different."""
    if not isinstance(value, str) or len(value) <= LONGEST_TEXT:
        return value
    return f"{value[:100]}… (sha256 {hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _nodes(environment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return _list(environment.get("nodes"))
