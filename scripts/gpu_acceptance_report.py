"""The parts of scripts/gpu_acceptance.sh that are done, as one JSON and one Markdown table.

    python scripts/gpu_acceptance_report.py FOLDER

Writes FOLDER/acceptance.json and FOLDER/acceptance.md, and prints the table; published figures stand beside
ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_name("published_figures.json")
_HEAD = ("part", "GPU", "s/image", "J/image", "TFLOP/s", "MFU", "peak GB", "W", "start s")


def main(argv: list[str]) -> int:
    """Write both files; 1 where no part has a result yet."""
    (folder,) = map(Path, argv)
    report = gather(folder)
    if not report["parts"]:
        print(f"gpu_acceptance: no part in {folder} has a result yet", file=sys.stderr)
        return 1
    (folder / "acceptance.json").write_text(json.dumps(report, indent=1) + "\n")
    text = as_markdown(report)
    (folder / "acceptance.md").write_text(text)
    print(text)
    return 0


def gather(folder: Path) -> dict[str, Any]:
    """Every part's figures, the machine that they are from, and the published ones of the same models."""
    results = {file.parents[1].name: json.loads(file.read_bytes()) for file in _results(folder)}
    published = json.loads(PUBLISHED.read_bytes())
    ran = {(r["model_id"], r["configuration"]["steps"]) for r in results.values()}
    last = max(results.values(), key=lambda r: r["date"], default=None)
    return {
        "date": None if last is None else last["date"],
        "environment": None if last is None else last["environment"],
        "parts": {name: _figures(result) for name, result in results.items()},
        "ring_parity": _ring_parity(folder),
        "aims": [_against_aim(aim, results) for aim in published["aims"]],
        "published": [f for f in published["figures"] if (f["model_id"], f["steps"]) in ran],
        "published_note": published["note"],
    }


def _ring_parity(folder: Path) -> dict[str, Any]:
    """Of ring attention on two GPUs with one GPU; `equal` is None where it was not checked."""
    if (folder / "ring-parity.done").exists():
        return {"equal": True, "reason": None}
    if (folder / "ring-parity.log").exists():
        return {"equal": False, "reason": "a test failed; ring-parity.log says which"}
    return {"equal": None, "reason": "not checked: it needs two GPUs"}


def _results(folder: Path) -> list[Path]:
    """In the order in which they were measured."""
    found = folder.glob("*/*/results.json")
    return sorted(found, key=lambda file: json.loads(file.read_bytes())["date"])


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    plan, seconds = result["configuration"], result["statistics"]["time_per_image_s"]
    joules = result["statistics"]["energy_per_image_j"]
    return {
        "model_id": result["model_id"],
        "weights": result["weights"],
        "steps": plan["steps"],
        "dtype": plan["dtype"],
        "engine": plan["engine"],
        "knobs": plan["knobs"],
        "gpu": plan["device_name"],
        "seconds_per_image": seconds["mean"],
        "seconds_ci95_half_width": seconds["ci95_half_width"],
        "joules_per_image": None if joules is None else joules["mean"],
        "joules_ci95_half_width": None if joules is None else joules["ci95_half_width"],
        "mean_power_w": result["energy_measurement"]["mean_power_w"],
        "tflops_per_gpu": result["tflops_per_gpu"],
        "mfu": result["mfu"],
        "j_per_tflop": result["j_per_tflop"],
        "peak_memory_gb": result["peak_memory_gb"],
        "first_call_s": result["first_call_s"],
        "load_s": max(rank["load_s"] for rank in result["load"]),
        "effects": result["effects"],
        "warnings": result["warnings"],
    }


def _against_aim(aim: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The fastest part of the aim's model that computes everything, on the aim's GPU."""
    parts = {name: _figures(result) for name, result in results.items()}
    same = {
        name: part
        for name, part in parts.items()
        if (part["model_id"], part["steps"], part["gpu"]) == (aim["model_id"], aim["steps"], aim["gpu"])
        and part["knobs"]["cache"] is None
        and part["knobs"]["quantization"] is None
    }
    best = min(same, key=lambda name: same[name]["seconds_per_image"], default=None)
    if best is None:
        return {**aim, "part": None, "met": None, "reason": "not measured on that GPU"}
    seconds, joules = same[best]["seconds_per_image"], same[best]["joules_per_image"]
    met = seconds <= aim["seconds"]
    if aim["joules"] is not None:
        met = met and joules is not None and joules <= aim["joules"]
    return {**aim, "part": best, "met": met, "measured_seconds": seconds, "measured_joules": joules}


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    parts: Mapping[str, Any] = report["parts"]
    lines = [f"# GPU acceptance, {report['date'][:10]}", "", _row(_HEAD), _row("---" for _ in _HEAD)]
    lines += [_row(_cells(name, part)) for name, part in parts.items()]
    lines += [
        "",
        "Seeded random weights, one image of 1024x1024 an iteration; ± is the 95 % interval of the mean.",
        "",
    ]
    ring = report["ring_parity"]
    lines.append(f"- ring attention in bfloat16 on two GPUs: {ring['reason'] or 'equals one GPU'}")
    for aim in report["aims"]:
        lines.append(_aim_line(aim))
    head = ("published", "GPU", "steps", "s/image", "J/image", "source")
    lines += ["", report["published_note"], "", _row(head), _row("---" for _ in head)]
    for f in report["published"]:
        model = f["model_id"].rpartition("/")[2]
        name = f"{model}, {f['how']}"
        lines.append(_row((name, f["gpu"], f["steps"], f["seconds"], _or_unknown(f["joules"]), f["source"])))
    return "\n".join(lines) + "\n"


def _cells(name: str, part: Mapping[str, Any]) -> list[str]:
    return [
        name,
        part["gpu"],
        _with_spread(part["seconds_per_image"], part["seconds_ci95_half_width"]),
        _with_spread(part["joules_per_image"], part["joules_ci95_half_width"]),
        _or_unknown(part["tflops_per_gpu"]),
        "not known" if part["mfu"] is None else f"{part['mfu']:.1%}",
        _or_unknown(part["peak_memory_gb"]),
        _or_unknown(part["mean_power_w"]),
        _or_unknown(part["load_s"]),
    ]


def _aim_line(aim: Mapping[str, Any]) -> str:
    joules = "" if aim["joules"] is None else f" and {aim['joules']} J"
    model = aim["model_id"].rpartition("/")[2]
    what = f"{model}, {aim['steps']} steps, {aim['gpu']}: aim {aim['seconds']} s{joules}"
    if aim["met"] is None:
        return f"- {what}: {aim['reason']}"
    found = f"{aim['measured_seconds']:.4g} s, {_or_unknown(aim['measured_joules'])} J ({aim['part']})"
    return f"- {what}: {'met' if aim['met'] else 'missed'} by {found}"


def _with_spread(mean: float | None, half_width: float | None) -> str:
    return _or_unknown(mean) + ("" if mean is None or half_width is None else f" ± {half_width:.2g}")


def _or_unknown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
