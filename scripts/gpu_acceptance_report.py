"""The parts of scripts/gpu_acceptance.sh that are done, as one JSON and one Markdown table.

    python scripts/gpu_acceptance_report.py FOLDER

Writes FOLDER/acceptance.json and FOLDER/acceptance.md, and prints the table; published figures and aims
(published.py) stand beside ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from published import FIGURE_HEAD, aim_line, compared, figure_cells

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.own_runs import plan_of_result
from mlenergy.diffusion.forecast.predict import forecast_of
from mlenergy.diffusion.results.units import unit_of

_HEAD = (
    *("part", "GPU", "s/output", "J/output", "integral ÷ counter", "forecast s", "TFLOP/s", "MFU", "peak GB"),
    *("W", "start s"),
)
_RING = "not checked: it needs two GPUs"
_ENERGY = "not checked: part energy is not done"
# Parts of scripts/bench_vs_bare.py, and what both sides have.
VS_BARE = {"vs-bare-eager": "eager", "vs-bare-best": "with the same levers"}


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
    parts = {name: _figures(result) for name, result in results.items()}
    last = max(results.values(), key=lambda r: r["date"], default=None)
    return {
        "date": None if last is None else last["date"],
        "environment": None if last is None else last["environment"],
        "parts": parts,
        "failed": [log.stem for log in sorted(folder.glob("*.log")) if not log.with_suffix(".done").exists()],
        "ring_parity": _tested(folder, "ring-parity", _RING),
        "energy_by_three": _tested(folder, "energy", _ENERGY),
        "overhead": _overhead(folder),
        "vs_bare": {name: _vs_bare(folder, name) for name in VS_BARE},
        "left_out": {file.stem: file.read_text().strip() for file in sorted(folder.glob("*.left_out"))},
        **compared(parts),
    }


def _tested(folder: Path, part: str, why_not: str) -> dict[str, Any]:
    """Outcome of a part that is tests; `equal` is None where it did not run."""
    if (folder / f"{part}.done").exists():
        return {"equal": True, "reason": None}
    if (folder / f"{part}.log").exists():
        return {"equal": False, "reason": f"a test failed; {part}.log says which"}
    return {"equal": None, "reason": why_not}


def _overhead(folder: Path) -> dict[str, Any] | None:
    """Windows with the instrument over those without, as scripts/bench_overhead.py has measured them."""
    file = folder / "overhead.json"
    if not (folder / "overhead.done").exists() or not file.exists():
        return None
    measured: dict[str, Any] = json.loads(file.read_bytes())
    return measured


def _vs_bare(folder: Path, part: str) -> dict[str, Any] | None:
    """Our windows over those of bare diffusers, as scripts/bench_vs_bare.py has measured them.

    Where ours were slower, or the two sides no pair, the part has failed and is shown all the same.
    """
    file = folder / f"{part}.json"
    if not file.exists():
        return None
    measured: dict[str, Any] = json.loads(file.read_bytes())
    is_met = measured["not_slower_beyond_noise"] and not measured["faults"]
    return {**measured, "met": bool(is_met)}


def _results(folder: Path) -> list[Path]:
    """In the order in which they were measured."""
    found = folder.glob("*/*/results.json")
    return sorted(found, key=lambda file: json.loads(file.read_bytes())["date"])


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    unit = unit_of(result)
    plan, seconds = result["configuration"], result["statistics"][unit.time]
    joules = result["statistics"][unit.energy]
    return {
        "model_id": result["model_id"],
        "weights": result["weights"],
        "steps": plan["steps"],
        "dtype": plan["dtype"],
        "engine": plan["engine"],
        "knobs": plan["knobs"],
        "lossy": Optimizations(**plan["knobs"]).lossy,
        "acted": not result.get("effects_failed"),
        "gpu": plan["device_name"],
        "gpus": plan["parallel"]["world_size"],
        "batch_size": plan["batch_size"],
        "size": f"{plan['width_px']}x{plan['height_px']}",
        "frames": plan.get("num_frames"),
        "unit": unit.name,
        "seconds_per_output": seconds["mean"],
        "seconds_ci95_half_width": seconds["ci95_half_width"],
        "joules_per_output": None if joules is None else joules["mean"],
        "joules_ci95_half_width": None if joules is None else joules["ci95_half_width"],
        "integral_over_counter": _integral_over_counter(result),
        "forecast": _forecast(result),
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


def _integral_over_counter(result: Mapping[str, Any]) -> float | None:
    """Joules of sampled power over those of the counter, all windows and GPUs; None where one is unknown."""
    pairs = [
        (iteration["sampled_energy_per_gpu_j"].get(uuid), joules)
        for iteration in result["iterations"]
        for uuid, joules in iteration["energy_per_gpu_j"].items()
    ]
    counted = result["energy_measurement"]["energy_source"] == "nvml_counter"
    if not counted or not pairs or any(sampled is None or not joules for sampled, joules in pairs):
        return None
    return float(sum(sampled for sampled, _ in pairs) / sum(joules for _, joules in pairs))


def _forecast(result: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds and joules that were forecast of one output; of all else the reason."""
    try:
        plan = plan_of_result(result)
        found = forecast_of(plan, plan.device_name, may_count=False)
    except UserError as error:
        return {"seconds_per_output": None, "reason": str(error)}
    seconds, joules = found.duration_s, found.energy_per_output_j
    return {
        "seconds_per_output": seconds.value / plan.batch_size,
        "seconds_low": seconds.low / plan.batch_size,
        "seconds_high": seconds.high / plan.batch_size,
        "joules_per_output": None if joules is None else joules.value,
        "basis": found.basis,
        "reason": None,
    }


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    parts: Mapping[str, Any] = report["parts"]
    lines = [f"# GPU acceptance, {report['date'][:10]}", "", _row(_HEAD), _row("---" for _ in _HEAD)]
    lines += [_row(_cells(name, part)) for name, part in parts.items()]
    lines += [
        "",
        "Seeded random weights, one output an iteration: an image of 1024x1024, or a video of the model's",
        "own size; ± is the 95 % interval of the mean. Forecasts are of eager runs.",
        "",
    ]
    ring, energy = report["ring_parity"], report["energy_by_three"]
    lines.append(f"- ring attention in bfloat16 on two GPUs: {ring['reason'] or 'equals one GPU'}")
    lines.append(f"- energy by counter, integral and nvidia-smi: {energy['reason'] or 'they agree'}")
    lines.append(f"- instrument, sampling included: {_overhead_text(report['overhead'])}")
    if report["failed"]:
        lines.append(f"- failed, or ended at their limit: {', '.join(report['failed'])}")
    for name, measured in report["vs_bare"].items():
        lines.append(_vs_bare_line(name, measured))
    lines += [f"- left out: {name}: {reason}" for name, reason in report["left_out"].items()]
    lines += ["", "Aims, by runs whose images are exact:", ""]
    lines += [aim_line(aim) for aim in report["aims"]]
    lines += ["", report["published_note"], "", _row(FIGURE_HEAD), _row("---" for _ in FIGURE_HEAD)]
    lines += [_row(figure_cells(figure)) for figure in report["published"]]
    return "\n".join(lines) + "\n"


def _overhead_text(overhead: Mapping[str, Any] | None) -> str:
    if overhead is None:
        return "not measured: part overhead is not done"
    ratio = overhead["wall_ratio"]
    low, high = ratio["median_ci95"]
    return (
        f"{ratio['median']:.4f} of a window without it ({low:.4f} to {high:.4f}, {overhead['pairs']} pairs)"
    )


def _cells(name: str, part: Mapping[str, Any]) -> list[str]:
    return [
        name,
        part["gpu"],
        _with_spread(part["seconds_per_output"], part["seconds_ci95_half_width"]),
        _with_spread(part["joules_per_output"], part["joules_ci95_half_width"]),
        _or_unknown(part["integral_over_counter"]),
        _or_unknown(part["forecast"]["seconds_per_output"]),
        _or_unknown(part["tflops_per_gpu"]),
        "not known" if part["mfu"] is None else f"{part['mfu']:.1%}",
        _or_unknown(part["peak_memory_gb"]),
        _or_unknown(part["mean_power_w"]),
        _or_unknown(part["load_s"]),
    ]


def _vs_bare_line(name: str, measured: Mapping[str, Any] | None) -> str:
    what = f"- our generate over bare diffusers, {VS_BARE[name]}: aim 1.00 beyond noise"
    if measured is None:
        return f"{what}: not measured"
    low, high = measured["ratio"]["geometric_mean_ci95"]
    pairs = f"{measured['pairs']} pairs of one start"
    found = f"{measured['ratio']['geometric_mean']:.4f} ({low:.4f} to {high:.4f}, {pairs})"
    faults = f"; no pair: {'; '.join(measured['faults'])}" if measured["faults"] else ""
    return f"{what}: {'met' if measured['met'] else 'not met'} by {found}{faults}"


def _with_spread(mean: float | None, half_width: float | None) -> str:
    return _or_unknown(mean) + ("" if mean is None or half_width is None else f" ± {half_width:.2g}")


def _or_unknown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
