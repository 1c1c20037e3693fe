"""The columns and folders of the ML.ENERGY data toolkit (`mlenergy.data`), which its leaderboard reads.

`DiffusionRuns.from_directory(OUT)` and `DiffusionRuns.from_raw_results(OUT, config_dir=OUT / "configs")` both
load what is written here; the timelines of a run come from its results.json.
"""

from __future__ import annotations

import bisect
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.export.derived import window_s
from mlenergy.diffusion.export.runs import Export, Run
from mlenergy.diffusion.results.atomic import write_json, written_aside

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("domain", "task", "model_id", "nickname")),
        *((name, pa.float64()) for name in ("total_params_billions", "activated_params_billions")),
        *((name, pa.string()) for name in ("weight_precision", "gpu_model")),
        *((name, pa.int64()) for name in ("num_gpus", "batch_size", "inference_steps", "height", "width")),
        *((name, pa.int64()) for name in ("num_frames", "fps", "ulysses_degree", "ring_degree")),
        ("use_torch_compile", pa.bool_()),
        *((name, pa.float64()) for name in ("batch_latency_s", "avg_power_watts")),
        ("energy_per_generation_joules", pa.float64()),
        ("throughput_generations_per_sec", pa.float64()),
        ("results_path", pa.string()),
    ]
)
# A GPU's short name, as the leaderboard has it: a letter or more, then digits.
_SHORT_GPU = re.compile(r"\b(?:[A-Z]{1,3}\d{1,4}[A-Z]?)\b")


def write_toolkit(runs: Iterable[Run], out: Path, export: Export) -> None:
    """Write `runs/diffusion.parquet`, a results.json for each run and a model_info.json for each model.

    Runs without measured energy are left out: the toolkit has no place for what is not known.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if out.exists() and any(out.iterdir()) and not (out / "runs" / "diffusion.parquet").exists():
        raise UserError(f"--out {out} is not empty and is no earlier export; name a new folder")
    for name in ("runs", "diffusion", "configs"):
        shutil.rmtree(out / name, ignore_errors=True)
    rows = []
    for run in runs:
        reason = _why_not(run)
        if reason is not None:
            export.leave_out(run.record, reason)
            continue
        row = row_of(run)
        place = _place(run, row["gpu_model"])
        write_json(out / place, results_of(run))
        write_json(out / "configs" / row["task"] / row["model_id"] / "model_info.json", _model_info(row))
        rows.append(row | {"results_path": place})
        export.written += 1
    with written_aside(out / "runs" / "diffusion.parquet") as aside:
        parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), aside)


def row_of(run: Run) -> dict[str, Any]:
    """A run in the toolkit's columns, without its path. Energy and power are those of all GPUs together."""
    record, latency_s = run.record, window_s(run.record)
    assert record.model_id is not None and record.energy_mean_j is not None
    billions = None if record.parameters_count is None else record.parameters_count / 1e9
    return {
        "domain": "diffusion",
        "task": record.task,
        "model_id": record.model_id,
        "nickname": record.model_id.rpartition("/")[2],
        "total_params_billions": billions,
        "activated_params_billions": billions,
        "weight_precision": record.dtype,
        "gpu_model": short_gpu_name(record.device_name or ""),
        "num_gpus": record.processes,
        "batch_size": record.batch_size,
        "inference_steps": record.steps,
        "height": record.height_px,
        "width": record.width_px,
        "num_frames": record.num_frames,
        "fps": record.fps,
        "ulysses_degree": record.ulysses_degree,
        "ring_degree": record.ring_degree,
        "use_torch_compile": record.compile_mode is not None,
        "batch_latency_s": latency_s,
        "avg_power_watts": record.mean_power_w,
        "energy_per_generation_joules": record.energy_mean_j,
        "throughput_generations_per_sec": record.throughput_per_s,
    }


def results_of(run: Run) -> dict[str, Any]:
    """The run's results.json with the keys that the toolkit reads added: iterations and timelines."""
    uuids = [gpu["uuid"] for gpu in (run.content.get("energy_measurement") or {}).get("gpus") or ()]
    iterations = [
        {"time": one["duration_s"], "gpu_energy": one.get("energy_per_gpu_j") or {}}
        for one in run.content["iterations"]
    ]
    added: dict[str, Any] = {
        "ulysses_degree": run.record.ulysses_degree,
        "ring_degree": run.record.ring_degree,
        "iteration_energy_measurements": iterations,
    }
    timeline = timeline_of(run.folder / "timeline.parquet", uuids)
    return {**run.content, **added} | ({} if timeline is None else {"timeline": timeline})


def timeline_of(file: Path, uuids: Sequence[str]) -> dict[str, Any] | None:
    """Power and temperature of each GPU as [seconds, value] pairs; None where nothing was sampled.

    The toolkit adds GPUs up at the times of the first one and reads nothing at other times, so all are told
    at those: with the last value that was sampled until then.
    """
    if not file.is_file():
        return None
    columns = parquet.read_table(file, columns=["uuid", "time_s", "power_w", "temperature_c"]).to_pydict()
    of_gpu: dict[str, list[tuple[float, float | None, float | None]]] = {}
    for uuid, time_s, power_w, temperature_c in zip(*columns.values(), strict=True):
        of_gpu.setdefault(uuid, []).append((time_s, power_w, temperature_c))
    order = [uuid for uuid in uuids if uuid in of_gpu] or sorted(of_gpu)
    if not order:
        return None
    series = {uuid: sorted(of_gpu[uuid]) for uuid in order}
    times = [time_s for time_s, _, _ in series[order[0]]]
    power = {str(k): held([(t, w) for t, w, _ in series[uuid]], times) for k, uuid in enumerate(order)}
    heat = {str(k): held([(t, c) for t, _, c in series[uuid]], times) for k, uuid in enumerate(order)}
    return {"power": {"device_instant": power}, "temperature": heat}


def held(samples: Sequence[tuple[float, float | None]], times: Sequence[float]) -> list[list[float]]:
    """The last known value at or before each time, and the first one before that."""
    known = [(time_s, value) for time_s, value in samples if value is not None]
    at = [time_s for time_s, _ in known]
    return [[t, known[max(0, bisect.bisect_right(at, t) - 1)][1]] for t in times] if known else []


def short_gpu_name(name: str) -> str:
    """The name as the leaderboard has it: H100 for "NVIDIA H100 80GB HBM3"."""
    plain = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    found = _SHORT_GPU.search(plain)
    return found[0] if found else plain


def _why_not(run: Run) -> str | None:
    record = run.record
    if record.energy_mean_j is None:
        reason = record.energy_reason
        return f"its energy is not known: {reason}" if reason else "its energy is not known"
    if record.device != "cuda":
        return "it ran on no GPU"
    if record.ulysses_degree is None or record.processes is None:
        return "its degrees are not in the result"
    return None


def _place(run: Run, gpu: str) -> str:
    """The path of a run's results.json, from which the toolkit reads what was run."""
    record = run.record
    assert record.model_id is not None
    org, _, model = record.model_id.rpartition("/")
    parts = {
        "batch": record.batch_size,
        "size": f"{record.height_px}x{record.width_px}",
        "steps": record.steps,
        "uly": record.ulysses_degree,
        "ring": record.ring_degree,
        "tc": record.compile_mode is not None,
        "id": f"{record.setup_digest}-{run.content['date']}",
    }
    config = "+".join(f"{key}-{value}" for key, value in parts.items()).replace(":", "")
    slug = gpu.lower().replace("/", "-")
    return (
        f"diffusion/{slug}/current/run/diffusion/{record.task}/{org or 'local'}/{model}/{config}/results.json"
    )


def _model_info(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "nickname": row["nickname"],
        "total_parameters_billion": row["total_params_billions"],
        "active_parameters_billion": row["activated_params_billions"],
        "weight_precision": row["weight_precision"],
    }
