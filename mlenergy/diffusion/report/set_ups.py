"""Set-ups as rows: values of named columns, what they differ in, filters and order. Pure."""

from __future__ import annotations

import fnmatch
import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import SetUp
from mlenergy.diffusion.results.units import UNITS, VIDEO, Unit

Reading = Callable[[SetUp], float | None]


def _of_each(unit: Unit) -> dict[str, Reading]:
    """Figures of images or of videos, which the other has not, so that no table holds one for the other."""
    readings: dict[str, Reading] = {
        f"seconds_per_{unit.name}": lambda s: s.seconds.mean,
        f"seconds_per_{unit.name}_ci95_half": lambda s: s.seconds.half_width,
        f"seconds_per_{unit.name}_spread": lambda s: s.seconds.spread,
        f"joules_per_{unit.name}": lambda s: None if s.joules is None else s.joules.mean,
        f"joules_per_{unit.name}_ci95_half": lambda s: None if s.joules is None else s.joules.half_width,
        f"joules_per_{unit.name}_spread": lambda s: None if s.joules is None else s.joules.spread,
        "peak_memory_gb": lambda s: s.peak_memory_gb,
        f"{unit.count}_per_s": lambda s: s.outputs_per_s,
        "starts": lambda s: len(s.starts),
    }
    if unit == VIDEO:
        readings |= {
            "num_frames": lambda s: s.first.num_frames,
            "fps": lambda s: s.first.fps,
            "frames_per_s": lambda s: _frames(s) / s.seconds.mean,
            "real_time_factor": lambda s: s.seconds.mean / _length_s(s),
            "joules_per_frame": lambda s: None if s.joules is None else s.joules.mean / _frames(s),
            "joules_per_video_second": lambda s: None if s.joules is None else s.joules.mean / _length_s(s),
        }
    neutral = ("peak_memory_gb", "starts")
    return {name: value if name in neutral else _only(unit, value) for name, value in readings.items()}


def _only(unit: Unit, reading: Reading) -> Reading:
    return lambda set_up: reading(set_up) if set_up.unit == unit else None


def _frames(set_up: SetUp) -> int:
    """Frames of one video; equal in all starts of a set-up."""
    assert set_up.first.num_frames
    return set_up.first.num_frames


def _length_s(set_up: SetUp) -> float:
    assert set_up.first.video_length_s
    return set_up.first.video_length_s


FIGURES_OF = {unit: _of_each(unit) for unit in UNITS}
FIGURES: dict[str, Reading] = {name: value for of in FIGURES_OF.values() for name, value in of.items()}
# Of whichever a set-up generates: to sort by, and for conditions.
_NEUTRAL: dict[str, Reading] = {
    "seconds": lambda s: s.seconds.mean,
    "joules": lambda s: None if s.joules is None else s.joules.mean,
}
_SHORT = {"gigabytes": "peak_memory_gb", "model": "model_id"}
_ENDINGS = ("_degree", "_size", "_px")
_SAYS_ENOUGH = ("model_id", "device_name", "dtype", "engine")  # values that need no name before them
_LABELS = {
    "num_frames": "frames",
    "benchmark_iters": "iters",
    "warmup_iters": "warm-up",
    "max_sequence_length": "text",
}
_FIELDS = frozenset(field.name for field in fields(ResultRecord))

# What follows from another setting, or says the same, where that one differs too.
_FOLLOWS = {
    "model_id": (
        "weights_from",
        "model.family",
        "model.pipeline_class",
        "model.parameters",
        "model.guidance",
        "model.conditioning",
        "conditioning",
    ),
    "device_name": ("device", "cpu", "cpu_cores", "gpus"),
}

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Filter:
    """A condition on one column, such as `batch_size >= 4` or `model_id = *FLUX*`."""

    name: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Filter:
        """From NAME SIGN VALUE.

        Raises:
            UserError: the text has another form.
        """
        match = re.fullmatch(r"\s*([\w.-]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", text, re.DOTALL)
        if match is None or not match[3]:
            raise UserError(
                f"--filter: cannot read {text!r}; write a column, one of = != < <= > >=, and a value, "
                "such as 'batch_size >= 4' or 'model_id = *FLUX*'"
            )
        return cls(match[1], "=" if match[2] == "==" else match[2], match[3])

    def holds(self, value: Any) -> bool:
        """True where it holds for a value; what is not known is only != something."""
        if self.sign in ("=", "!="):
            return self._equals(value) == (self.sign == "=")
        try:
            return value is not None and _COMPARE[self.sign](float(value), float(self.value))
        except ValueError:
            return _COMPARE[self.sign](str(value), self.value)

    def _equals(self, value: Any) -> bool:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return math.isclose(value, float(self.value), rel_tol=1e-9)
            except ValueError:
                return False
        return fnmatch.fnmatchcase(text_of(value), self.value)


def value_of(set_up: SetUp, name: str) -> Any:
    """A column's value; of starts that differ in it, the mean of numbers and all texts."""
    if name in FIGURES or name in _NEUTRAL:
        return (FIGURES.get(name) or _NEUTRAL[name])(set_up)
    if name not in _FIELDS:
        parts = (set_up.settings, set_up.hardware, set_up.versions)
        return next((part[name] for part in parts if name in part), None)
    values = list(dict.fromkeys(getattr(one, name) for one in set_up.starts))
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, (int, float)) for value in values):
        return statistics.fmean(getattr(one, name) for one in set_up.starts)
    return ", ".join(text_of(value) for value in values)


def column_name(written: str, set_ups: Sequence[SetUp], option: str) -> str:
    """The full name of a column that a command line names.

    Raises:
        UserError: there is none; with the one that was probably meant.
    """
    name = written.strip().replace("-", "_")
    units = {one.unit.name for one in set_ups}
    if name in _NEUTRAL and len(units) == 1:
        return f"{name}_per_{units.pop()}"
    candidates = (written.strip(), _SHORT.get(name, name), *(name + ending for ending in _ENDINGS))
    known = {*FIGURES, *_NEUTRAL, *_FIELDS}
    # The settings of a hundred thousand results take seconds to read, so they come second.
    for more in (False, True):
        if more:
            known |= {key for one in set_ups for key in (*one.settings, *one.hardware, *one.versions)}
        for candidate in candidates:
            if candidate in known:
                return candidate
    meant = nearest(name, [*known, *_SHORT])
    hint = f"did you mean {meant}?" if meant else "docs/reports.md lists them"
    raise UserError(f"--{option}: there is no column {written.strip()!r}; {hint}")


def kept(set_ups: Sequence[SetUp], filters: Sequence[str]) -> list[SetUp]:
    """The set-ups for which all filters hold.

    Raises:
        UserError: a filter is not understood, or names no column.
    """
    found = list(set_ups)
    for text in filters:
        condition = Filter.parse(text)
        name = column_name(condition.name, set_ups, "filter")
        found = [one for one in found if condition.holds(value_of(one, name))]
    return found


def ordered(set_ups: Iterable[SetUp], name: str, reverse: bool) -> list[SetUp]:
    """By a column, the smallest first; what is not known comes last in either order."""
    valued = [(value_of(one, name), one) for one in set_ups]
    known = [pair for pair in valued if pair[0] is not None]
    numbers = all(isinstance(value, (int, float)) for value, _ in known)
    known.sort(key=lambda pair: pair[0] if numbers else text_of(pair[0]), reverse=reverse)
    return [one for _, one in known] + [one for value, one in valued if value is None]


def differences(set_ups: Sequence[SetUp], all_of_them: bool = False) -> list[str]:
    """Columns of settings, hardware and versions in which the set-ups differ, most telling first.

    Args:
        set_ups: any number.
        all_of_them: also what follows from another difference.
    """
    if len(set_ups) < 2:
        return []
    names = [*("model_id", "device_name", "batch_size"), *_all_names(set_ups)]
    found = [name for name in dict.fromkeys(names) if _differs(set_ups, name)]
    if all_of_them:
        return found
    follows = {name for leader in found for name in _FOLLOWS.get(leader, ())}
    if any(name.endswith("_degree") for name in found):
        follows.add("processes")
    if "torch" in found:
        follows |= {"torch_cuda"}
    return [name for name in found if name not in follows]


def common_text(set_ups: Sequence[SetUp]) -> str:
    """The main facts that all set-ups have in common."""
    first = set_ups[0]
    size = f"{first.settings.get('width_px')}x{first.settings.get('height_px')}"
    shown = {"model_id": None, "engine": None, "dtype": None, "width_px": size}
    shown |= {"num_frames": "{} frames", "fps": "{} fps", "steps": "{} steps"}
    shown["steps"] = "{} scales" if first.settings.get("engine") == "autoregressive" else "{} steps"
    shown |= {"device_name": None, "processes": "{} processes"}
    parts = []
    for name, form in shown.items():
        value = value_of(first, name)
        if name == "model_id" and value is not None:
            value = f"{value}{_condition(first)}"
        if value is not None and not _differs(set_ups, name):
            text = "1 process" if (name, value) == ("processes", 1) else (form or "{}").format(value)
            parts.append(text)
    return ", ".join(parts)


def difference_text(set_up: SetUp, names: Sequence[str]) -> str:
    """A set-up's values in some columns, as short as they can be understood."""
    parts = []
    for name in names:
        value = value_of(set_up, name)
        if value is None and name in ("guidance_scale_2", "boundary_ratio"):
            continue  # a model with one denoiser has none
        if name in ("width_px", "height_px"):
            parts.append(f"{value_of(set_up, 'width_px')}x{value_of(set_up, 'height_px')}")
        elif name == "weights":
            parts.append(f"{text_of(value)} weights")
        elif name in _SAYS_ENOUGH and value is not None:
            parts.append(f"{text_of(value)}{_condition(set_up) if name == 'model_id' else ''}")
        else:
            parts.append(f"{label(name)} {text_of(value)}")
    return ", ".join(dict.fromkeys(parts))


def _condition(set_up: SetUp) -> str:
    """Words after a model's name where no prompt steers it."""
    return " (class-conditional)" if value_of(set_up, "conditioning") == "class" else ""


def label(name: str) -> str:
    """A column's name as a table shows it."""
    short = next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)
    return _LABELS.get(name, short)


def text_of(value: Any) -> str:
    """A value as text: none, yes and no where it is no text or number."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _all_names(set_ups: Sequence[SetUp]) -> list[str]:
    parts = [part for one in set_ups for part in (one.settings, one.hardware, one.versions)]
    return list(dict.fromkeys(name for part in parts for name in part))


def _differs(set_ups: Sequence[SetUp], name: str) -> bool:
    # repr: 1, 1.0 and True are equal, and lists cannot be in a set.
    first = repr(value_of(set_ups[0], name))
    return any(repr(value_of(one, name)) != first for one in set_ups[1:])
