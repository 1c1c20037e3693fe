"""OpenMetrics text, as Prometheus and its relatives read it from a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlenergy.diffusion.export.runs import Export, Run
from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.units import VIDEO

# Name, unit, help, and the field and factor of its value. A name ends in its unit, a base unit, as
# https://prometheus.io/docs/specs/om/open_metrics_spec/ asks.
_METRICS = (
    ("mlenergy_image_time_seconds", "seconds", "Mean time of an image.", "time_per_image_mean_s", 1.0),
    (
        "mlenergy_image_energy_joules",
        "joules",
        "Mean energy of an image, all GPUs of the run.",
        "energy_per_image_mean_j",
        1.0,
    ),
    ("mlenergy_peak_memory_bytes", "bytes", "Peak memory of the fullest GPU.", "peak_memory_gb", 1e9),
    (
        "mlenergy_throughput_images_per_second",
        "",
        "Images a second.",
        "throughput_images_per_s",
        1.0,
    ),
    ("mlenergy_video_time_seconds", "seconds", "Mean time of a video.", "time_per_video_mean_s", 1.0),
    (
        "mlenergy_video_energy_joules",
        "joules",
        "Mean energy of a video, all GPUs of the run.",
        "energy_per_video_mean_j",
        1.0,
    ),
    ("mlenergy_throughput_videos_per_second", "", "Videos a second.", "throughput_videos_per_s", 1.0),
    ("mlenergy_throughput_frames_per_second", "", "Frames a second.", "throughput_frames_per_s", 1.0),
    (
        "mlenergy_video_real_time_ratio",
        "ratio",
        "Seconds that one second of video takes.",
        "real_time_factor",
        1.0,
    ),
    ("mlenergy_power_watts", "watts", "Mean power of all GPUs of the run together.", "mean_power_w", 1.0),
)
_LABELS = ("folder", "model_id", "device_name", "processes", "batch_size", "dtype", "engine", "setup_digest")
_VIDEO_LABELS = ("width_px", "height_px", "num_frames", "fps")  # a video's figures say little without


def write_openmetrics(runs: Iterable[Run], out: Path, export: Export) -> None:
    """Write a gauge for each figure, with a sample for each run that has it.

    Raises:
        UserError: the file cannot be written.
    """
    records = [run.record for run in runs]
    export.written += len(records)
    with written_aside(out) as aside:
        aside.write_text(exposition(records), encoding="utf-8")


def exposition(records: Iterable[ResultRecord]) -> str:
    """The text of some runs."""
    known = list(records)
    lines = []
    for name, unit, text, column, factor in _METRICS:
        lines.append(f"# TYPE {name} gauge")
        lines += [f"# UNIT {name} {unit}"] if unit else []
        lines.append(f"# HELP {name} {text}")
        for record in known:
            value = getattr(record, column)
            if value is not None:
                lines.append(f"{name}{{{_labels(record)}}} {value * factor!r}")
    return "\n".join([*lines, "# EOF", ""])


def _labels(record: ResultRecord) -> str:
    names = (*_LABELS, *(_VIDEO_LABELS if record.counted == VIDEO else ()))
    values = {name: getattr(record, name) for name in names}
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in values.items() if value is not None)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
