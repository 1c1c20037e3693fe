"""Report of the study `mlperf-wan2.2`: latencies of its queries, and why it is no submission. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlenergy.diffusion.measure.statistics import Summary, summarize
from mlenergy.diffusion.prompts.sources import BUNDLED_FILES
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.studies.content import (
    Chart,
    Column,
    Gap,
    Measured,
    Part,
    Point,
    Report,
    Series,
    Table,
    Value,
    joules_of,
    memory_of,
    seconds_of,
)
from mlenergy.diffusion.studies.outcome import Cell

MODEL = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
# Of the text-to-video benchmark of MLPerf Inference v6.0, single-stream; options of `mlenergy run`.
SETTINGS: Mapping[str, Any] = {
    "height": 720,
    "width": 1280,
    "num_frames": 81,
    "fps": 16,
    "inference_steps": 20,
    "guidance_scale": 4.0,
    "guidance_scale_2": 3.0,
    "boundary_ratio": 0.875,
    "seed": 42,
}
LEAST_QUERIES = 50
REFERENCE_SCORE, BOUND_SCORE = 70.48, 69.7752  # VBench, and 99 % of it

NOT_A_SUBMISSION = "Not a submission to MLPerf, and not a result of it."
REASONS = (
    "MLPerf's load generator is not used; queries follow each other, each from its prompt to its pixels",
    "its fixed initial latent is not used: video i has the noise of seed 42 + i",
    "no VBench score is computed here, so that nothing says whether the videos meet its bound",
    "nobody has reviewed it",
)
_NO_SCORE = "not measured here; score the saved videos with VBench"
# Of `configuration` in results.json, by option; the names of what both tell.
_CONFIGURED = {"height": "height_px", "width": "width_px", "inference_steps": "steps"}
_RULES = "as its rules allow"
_PERCENTILES = ("p50", "p90", "p99")


def report_on(cells: Sequence[Cell], changed: Sequence[str] = ()) -> Report:
    """Latencies, the score's bound, the settings, and a chart over the number of GPUs.

    Args:
        cells: one for each way to share a video.
        changed: options that --set has changed.
    """
    parts: list[Part] = [_latencies(cells), *_chart(cells), _quality(), _settings(cells, changed)]
    data = {
        "is_submission": False,
        "not_a_submission": {"statement": NOT_A_SUBMISSION, "reasons": list(REASONS)},
        "quality": {
            "metric": "VBench",
            "bound": BOUND_SCORE,
            "reference": REFERENCE_SCORE,
            "measured": None,
            "reason": _NO_SCORE,
        },
    }
    return Report(
        "Wan 2.2 as MLPerf Inference asks for it: not a submission", [*_summary(cells)], parts, data
    )


def latency_of(cell: Cell) -> Summary | None:
    """Seconds of each query of all complete runs, summed up; None without one.

    A window makes one video, so that its duration is the latency of its query.
    """
    windows = [
        window
        for run in cell.runs
        if run.record is not None
        for window in run.content.get("iterations") or ()
    ]
    assert all(window["videos"] == 1 for window in windows), "a query is one video"
    return summarize([window["duration_s"] for window in windows]) if windows else None


def way_of(cell: Cell) -> str:
    """The parallel modes of a cell with their degrees."""
    named = [f"{name} {degree}" for name, degree in zip(_MODES, _degrees(cell), strict=True) if degree > 1]
    return " × ".join(named) or "alone"


_MODES = ("CFG", "Ulysses", "ring")


def _degrees(cell: Cell) -> tuple[int, int, int]:
    cfg = 2 if cell.option("use_cfg_parallel") else 1
    return cfg, int(cell.option("ulysses_degree")), int(cell.option("ring_degree"))


def _gpus(cell: Cell) -> int:
    cfg, ulysses, ring = _degrees(cell)
    return cfg * ulysses * ring


def _summary(cells: Sequence[Cell]) -> Iterator[str]:
    yield f"{NOT_A_SUBMISSION} {'; '.join(REASONS)}."
    known = [(cell, found) for cell in cells if (found := latency_of(cell)) is not None]
    if known:
        cell, best = min(known, key=lambda pair: pair[1].p90)
        gpus = _gpus(cell)
        yield (
            f"Least 90th percentile: {number(best.p90)} s a video (mean {number(best.mean)} s, {best.count} "
            f"queries), by {gpus} {_of_device(cell, gpus)}, {way_of(cell)}."
        )
    few = [found.count for _, found in known if found.count < LEAST_QUERIES]
    if few:
        yield f"Fewer queries than the {LEAST_QUERIES} that MLPerf asks for: {min(few)} in the shortest run."
    if any(str(cell.option("model_id")) != MODEL for cell in cells):
        yield f"A tiny model stands in for {MODEL}: its figures are of no other use than to try the study."


def _of_device(cell: Cell, count: int) -> str:
    record = None if cell.set_up is None else cell.set_up.first
    on_cpu = record is not None and record.device == "cpu"
    return ("process" if count == 1 else "processes") if on_cpu else ("GPU" if count == 1 else "GPUs")


def _latencies(cells: Sequence[Cell]) -> Table:
    rows: list[Mapping[str, Value]] = []
    for cell in cells:
        found, missing = latency_of(cell), Gap(cell.gap or "not measured")
        cfg, ulysses, ring = _degrees(cell)
        doubts = () if cell.set_up is None else tuple(text for _, text in cell.set_up.doubts("seconds"))
        row: dict[str, Value] = {
            "device": missing if cell.set_up is None else cell.set_up.first.device_name or Gap("not known"),
            "gpus": _gpus(cell),
            "cfg": cfg,
            "ulysses": ulysses,
            "ring": ring,
            "queries": missing if found is None else found.count,
            "latency_mean_s": seconds_of(cell),
        }
        for name, value in zip(_PERCENTILES, _shares(found), strict=True):
            row[f"latency_{name}_s"] = missing if value is None else Measured(value, doubts=doubts)
        row["energy_per_video_j"] = joules_of(cell)
        row["peak_memory_gb"] = memory_of(cell)
        rows.append(row)
    columns = (
        Column("device", "device"),
        Column("gpus", "GPUs"),
        Column("cfg", "CFG"),
        Column("ulysses", "Ulysses"),
        Column("ring", "ring"),
        Column("queries", "queries"),
        Column("latency_mean_s", "mean, s"),
        *(Column(f"latency_{name}_s", f"{name}, s") for name in _PERCENTILES),
        Column("energy_per_video_j", "J/video"),
        Column("peak_memory_gb", "peak GB"),
    )
    note = (
        f"{NOT_A_SUBMISSION} Latency of a query: one video, from its prompt to its pixels on the GPU, "
        "without the file. ± is the 95 % interval of the mean. Percentiles are interpolated between sorted "
        "queries, without the load generator's early-stopping estimate; p99 of fewer than 100 queries lies "
        "between the two slowest."
    )
    return Table("latencies", "Latency of a query (not a submission)", columns, rows, note)


def _shares(found: Summary | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.median, found.p90, found.p99)


def _chart(cells: Sequence[Cell]) -> Iterator[Chart]:
    series: dict[str, list[Point]] = {}
    for cell in cells:
        found = latency_of(cell)
        if found is not None:
            modes = [name for name, degree in zip(_MODES, _degrees(cell), strict=True) if degree > 1]
            label = f"{way_of(cell)}: {number(found.p90)} s"
            series.setdefault(" and ".join(modes) or "alone", []).append(
                Point(_gpus(cell), found.p90, label=label)
            )
    if series:
        yield Chart(
            "p90_over_gpus",
            "90th percentile of latency over GPUs (not a submission)",
            "GPUs that share a video",
            "seconds",
            [Series(modes, points) for modes, points in series.items()],
            log=True,
        )


def _quality() -> Table:
    row: dict[str, Value] = {
        "metric": "VBench",
        "reference": str(REFERENCE_SCORE),  # texts, so that neither is rounded
        "bound": str(BOUND_SCORE),
        "measured": Gap(_NO_SCORE),
    }
    columns = (
        Column("metric", "metric"),
        Column("reference", "reference"),
        Column("bound", "at least"),
        Column("measured", "measured"),
    )
    note = "The bound is 99 % of the reference. A latency without a score says nothing of the videos."
    return Table("quality", "The bound of the score", columns, [row], note)


def _settings(cells: Sequence[Cell], changed: Sequence[str]) -> Table:
    """What MLPerf asks for beside what ran, as the results tell."""
    contents = [run.content for cell in cells for run in cell.runs if run.record is not None]
    plans: list[Mapping[str, Any]] = [content["configuration"] for content in contents]
    rows = [_setting("model_id", MODEL, (plan["model_id"] for plan in plans))]
    rows += [
        _setting(name, value, (plan[_CONFIGURED.get(name, name)] for plan in plans))
        for name, value in SETTINGS.items()
    ]
    rows.append(_setting("batch_size", 1, (plan["batch_size"] for plan in plans)))
    counts = [int(content["completed"]) for content in contents]
    enough: Value = min(counts) >= LEAST_QUERIES if counts else Gap("nothing was measured")
    rows.append(_row("queries", f"{LEAST_QUERIES} or more", _joined(counts), enough))
    sources = [str(plan["dataset"]) for plan in plans]
    unchecked: Value = Gap("which prompts the file holds is not checked")
    listed = False if any(source in BUNDLED_FILES for source in sources) else unchecked
    rows.append(_row("prompts", "248 of VBench", _joined(sources), listed))
    rows.append(_setting("weights", "pretrained", (content["weights"] for content in contents)))
    rows.append(_row("initial latent", "a fixed one", "of seed 42 + i", False))
    rows.append(_row("load generator", "MLPerf's", "none: one query after another", False))
    rules = Gap("MLPerf's rules say what is allowed; not checked here")
    rows.append(_row("dtype", _RULES, _joined(plan["dtype"] for plan in plans), rules))
    for name in ("quantization", "cache", "compile_mode", "attention", "scheduler"):
        rows.append(_row(name, _RULES, _joined(plan["knobs"].get(name) or "none" for plan in plans), rules))
    if changed:
        rows.append(_row("--set", "–", ", ".join(changed), Gap("changed by the user")))
    columns = (
        Column("setting", "setting"),
        Column("mlperf", "MLPerf"),
        Column("here", "here"),
        Column("same", "the same"),
    )
    return Table("settings", "Settings, MLPerf's and here", columns, rows)


def _setting(name: str, wanted: object, here: Iterable[object]) -> dict[str, Value]:
    found = _joined(here)
    return _row(name, str(wanted), found, _same(str(wanted), found))


def _row(name: str, wanted: str, here: Value, same: Value) -> dict[str, Value]:
    return {"setting": name, "mlperf": wanted, "here": here, "same": same}


def _joined(values: Iterable[object]) -> Value:
    found = dict.fromkeys(str(value) for value in values)
    return ", ".join(found) or Gap("nothing was measured")


def _same(wanted: str, here: Value) -> Value:
    return here if isinstance(here, Gap) else here == wanted
