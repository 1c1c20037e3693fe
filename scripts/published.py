"""Published figures and aims beside what was measured: an aim is met, not met, or not measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published_figures.json")

Part = Mapping[str, Any]


def compared(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Every aim with what met or missed it, and the figures of models that were measured with ours beside."""
    published = json.loads(FILE.read_bytes())
    ran = {(part["model_id"], part["steps"]) for part in parts.values()}
    return {
        "aims": [against_aim(aim, parts) for aim in published["aims"]],
        "published": [
            beside(figure, parts)
            for figure in published["figures"]
            if (figure["model_id"], figure["steps"]) in ran
        ],
        "published_note": published["note"],
    }


def against_aim(aim: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[str, Any]:
    """An aim and the part that stands against it; `met` is None where there is none.

    One part has to hold both figures: the fastest that does, else the fastest at all.
    """
    able = {name: part for name, part in parts.items() if counts_for(part, aim)}
    if not able:
        return {**aim, "part": None, "met": None, "reason": f"not measured on {_where(aim)}"}
    holding = {name: part for name, part in able.items() if _holds(part, aim)}
    best = _fastest(holding or able)
    part = able[best]
    return {
        **aim,
        "part": best,
        "met": bool(holding),
        "measured_seconds": part["seconds_per_output"],
        "measured_joules": part["joules_per_output"],
    }


def beside(figure: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[str, Any]:
    """A published figure and our fastest exact run of the same work on as many GPUs of that kind."""
    able = {name: part for name, part in parts.items() if counts_for(part, figure)}
    if not able:
        return {**figure, "part": None, "measured_seconds": None, "ours_over_published": None}
    best = _fastest(able)
    seconds = able[best]["seconds_per_output"]
    return {
        **figure,
        "part": best,
        "measured_seconds": seconds,
        "ours_over_published": seconds / figure["seconds"],
    }


def counts_for(part: Part, wanted: Mapping[str, Any]) -> bool:
    """True for a part of the same work, on the same GPUs, whose images are exact and whose options all acted.

    A figure whose size is not known is of no part's work.
    """
    same_work = (part["model_id"], part["steps"], part["size"], part["frames"]) == (
        *(wanted["model_id"], wanted["steps"], wanted["size"]),
        wanted.get("frames"),
    )
    same_gpus = part["gpu"] in _driver_names(wanted["gpu"]) and part["gpus"] == wanted["gpus"]
    return same_work and same_gpus and part["batch_size"] == 1 and not part["lossy"] and part["acted"]


def _driver_names(gpu: str) -> list[str]:
    """The names by which the driver calls a GPU: an H200 NVL, with another power limit, is no H200."""
    text = files("mlenergy.diffusion").joinpath("data/gpu_hardware.json").read_text(encoding="utf-8")
    return [name for one in json.loads(text)["gpus"] if one["name"] == gpu for name in one["driver_names"]]


def _holds(part: Part, aim: Mapping[str, Any]) -> bool:
    seconds, joules = part["seconds_per_output"], part["joules_per_output"]
    if aim["joules"] is not None and (joules is None or joules > aim["joules"]):
        return False
    return bool(seconds <= aim["seconds"])


def _fastest(parts: Mapping[str, Part]) -> str:
    return min(parts, key=lambda name: parts[name]["seconds_per_output"])


def _where(wanted: Mapping[str, Any]) -> str:
    return f"{wanted['gpus']} x {wanted['gpu']}"


def aim_line(aim: Mapping[str, Any]) -> str:
    """An aim in one line of Markdown."""
    joules = "" if aim["joules"] is None else f" and {aim['joules']} J"
    what = f"{_work(aim)}, {_where(aim)}: aim {aim['seconds']} s{joules}"
    if aim["met"] is None:
        return f"- {what}: not measured"
    ours = aim["measured_joules"]
    found = f"{aim['measured_seconds']:.4g} s, {'not known' if ours is None else f'{ours:.4g}'} J"
    return f"- {what}: {'met' if aim['met'] else 'not met'} by {found} ({aim['part']})"


def figure_cells(figure: Mapping[str, Any]) -> tuple[str, ...]:
    """A published figure and ours as cells of `FIGURE_HEAD`."""
    ours = figure["measured_seconds"]
    note = f"; {figure['note']}" if figure.get("note") else ""
    return (
        f"{_work(figure)}, {figure['how']}",
        _where(figure),
        f"{figure['seconds']:.4g}",
        "not known" if figure["joules"] is None else f"{figure['joules']:.4g}",
        "not measured" if ours is None else f"{ours:.4g} ({figure['part']})",
        "" if ours is None else f"{figure['ours_over_published']:.3f}",
        f"{figure['source']}, {figure['date'] or 'date not known'}{note}",
    )


FIGURE_HEAD = ("published", "GPUs", "s", "J", "ours, s", "ours ÷ published", "source")


def _work(wanted: Mapping[str, Any]) -> str:
    model = wanted["model_id"].rpartition("/")[2]
    frames = f", {wanted['frames']} frames" if wanted.get("frames") else ""
    return f"{model}, {wanted['steps']} steps, {wanted['size'] or 'size not known'}{frames}"
