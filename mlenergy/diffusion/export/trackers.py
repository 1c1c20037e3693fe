"""Runs of experiment trackers, written to local stores alone: Weights & Biases offline, MLflow in SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.export.derived import Prices, derived
from mlenergy.diffusion.export.runs import Export, Run
from mlenergy.diffusion.results.record import ResultRecord

PROJECT = "mlenergy-diffusion"
_METRICS = (
    *("time_per_image_mean_s", "time_per_image_stdev_s", "time_per_image_ci95_half_s"),
    *("throughput_images_per_s", "energy_per_image_mean_j", "energy_per_image_ci95_half_j", "mean_power_w"),
    *("time_per_video_mean_s", "time_per_video_stdev_s", "time_per_video_ci95_half_s"),
    *("throughput_videos_per_s", "energy_per_video_mean_j", "energy_per_video_ci95_half_j"),
    *("throughput_frames_per_s", "video_seconds_per_s", "real_time_factor"),
    *("energy_per_frame_j", "energy_per_video_second_j"),
    *("peak_memory_gb", "tflops_per_gpu", "mfu", "first_call_s", "load_s"),
)


def write_wandb(runs: Iterable[Run], out: Path, export: Export, prices: Prices) -> None:
    """Write a run of Weights & Biases for each result, offline; `wandb sync` uploads them if one wants to.

    Raises:
        UserError: the package is missing.
    """
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb") from error
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        tracked = wandb.init(
            mode="offline",
            dir=str(out),
            project=PROJECT,
            name=run.record.folder,
            group=run.record.setup_digest,
            config=settings_of(run.record),
            settings=settings,
        )
        for name, value in metrics_of(run.record, prices).items():
            tracked.summary[name] = value
        tracked.finish()
        export.written += 1


def write_mlflow(runs: Iterable[Run], out: Path, export: Export, prices: Prices) -> None:
    """Write a run of MLflow for each result into a SQLite store; `mlflow ui --backend-store-uri` shows it.

    Raises:
        UserError: a package is missing.
    """
    try:
        import mlflow
        import sqlalchemy  # noqa: F401 - MLflow's store asks for it only when it is opened
    except ImportError as error:
        raise _missing("mlflow") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}")
    known = client.get_experiment_by_name(PROJECT)
    experiment = client.create_experiment(PROJECT) if known is None else known.experiment_id
    for run in runs:
        tracked = client.create_run(experiment, run_name=run.record.folder)
        identity = tracked.info.run_id
        for name, value in settings_of(run.record).items():
            client.log_param(identity, name, value)
        for name, value in metrics_of(run.record, prices).items():
            client.log_metric(identity, name, value)
        for code, message in run.record.warnings:
            client.set_tag(identity, f"warning.{code}", message)
        client.set_terminated(identity)
        export.written += 1


def settings_of(record: ResultRecord) -> dict[str, Any]:
    """Settings and machine of a run, by name."""
    settings = json.loads(record.settings_json) if record.settings_json else {}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
        )
    where = ("device_name", "gpu_names", "hostnames", "torch_version", "program_version", "program_commit")
    flat |= {name: getattr(record, name) for name in where}
    return {name: value for name, value in flat.items() if value is not None}


def metrics_of(record: ResultRecord, prices: Prices) -> dict[str, float]:
    """Every figure that is known, by name with its unit."""
    figures = {name: getattr(record, name) for name in _METRICS} | derived(record, prices)
    return {name: float(value) for name, value in figures.items() if value is not None}


def _missing(extra: str) -> UserError:
    return UserError(f'--format {extra} needs its package; pip install "mlenergy-diffusion[{extra}]"')
