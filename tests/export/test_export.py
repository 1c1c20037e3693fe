"""Exports: each read again by the program that the format belongs to, with figures computed by hand."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from result_folders import result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.export.command import main
from mlenergy.diffusion.export.derived import Prices, derived
from mlenergy.diffusion.export.openmetrics import exposition
from mlenergy.diffusion.export.toolkit import held, short_gpu_name
from mlenergy.diffusion.export.trackers import metrics_of
from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.results.record import ResultRecord

# FLUX.1-dev on two H200s, batches of four: 8 and 12 s, 6000 and 4000 J, so 2.5 s and 1250 J an image, 500 W.
SECONDS, JOULES = (8.0, 12.0), (6000.0, 4000.0)


def timeline(folder: Path) -> None:
    """GPU-a every second with 200 W; GPU-b half a second later, with 300 and then 500 W."""
    columns: dict[str, Any] = {
        "node": ["node-a"] * 3 + ["node-b"] * 3,
        "uuid": ["GPU-a"] * 3 + ["GPU-b"] * 3,
        "time_s": [0.0, 1.0, 2.0, 0.5, 1.5, 2.5],
        "power_w": [200.0, 200.0, 200.0, 300.0, 500.0, 500.0],
        "temperature_c": [40, 41, 42, 50, 51, 52],
    }
    parquet.write_table(pa.table(columns), folder / "timeline.parquet")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two complete runs, one of them on a CPU and without energy, and three that cannot be exported."""
    folder = tmp_path / "results"
    content = result(SECONDS, JOULES, width_px=768)
    content["energy_measurement"] |= {"cpu_package_j": 720.0, "dram_j": None}
    timeline(save(folder / "gpu", content))
    save(folder / "cpu", result(on_cpu=True))
    save(folder / "torn", "{")
    save(folder / "foreign", {"tests": 3})
    save(folder / "pending", result(SECONDS, JOULES) | {"effects_pending": True})
    return folder


def export(results: Path, out: Path, kind: str, *options: str) -> int:
    return main([str(results), "--format", kind, "--out", str(out), *options])


def rows_of(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as stream:
        return {row.get("folder") or row["run_id"]: row for row in csv.DictReader(stream)}


def test_csv(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert export(results, out, "csv", "--usd_per_gpu_hour", "3.6", "--usd_per_kwh", "0.3") == 0
    rows = rows_of(out)
    assert set(rows) == {"gpu", "cpu"}
    row = rows["gpu"]
    assert float(row["time_per_image_mean_s"]) == pytest.approx(2.5)
    assert float(row["energy_per_image_mean_j"]) == pytest.approx(1250)
    assert float(row["energy_per_1000_images_wh"]) == pytest.approx(1250 / 3.6)
    assert float(row["energy_delay_per_image_j_s"]) == pytest.approx(1250 * 10)  # a window takes 10 s
    # Two GPUs for 2500 s; 1250 J are 0.000347 kWh.
    assert float(row["gpu_cost_per_1000_images_usd"]) == pytest.approx(2 * 2500 / 3600 * 3.6)
    assert float(row["electricity_cost_per_1000_images_usd"]) == pytest.approx(1250e3 / 3.6e6 * 0.3)
    assert rows["cpu"]["energy_per_image_mean_j"] == "" and rows["cpu"]["energy_reason"]
    assert rows["cpu"]["gpu_cost_per_1000_images_usd"] == ""
    said = capsys.readouterr().out
    for name in ("torn", "foreign", "pending"):
        assert f"left out: {name}" in said


def test_without_a_price_no_money_is_computed() -> None:
    record = ResultRecord(folder="a", file="results.json", state="complete", energy_per_image_mean_j=3600.0)
    found = derived(record, Prices())
    assert found["energy_per_1000_images_wh"] == pytest.approx(1000)
    assert [value for name, value in found.items() if name.endswith("usd")] == [None] * 4
    assert derived(record, Prices(usd_per_kwh=2.0))["electricity_cost_per_1000_images_usd"] == pytest.approx(
        2.0
    )


def test_no_text_is_a_formula_of_a_spreadsheet(results: Path, tmp_path: Path) -> None:
    content = result(SECONDS, JOULES)
    content["model_id"] = "=HYPERLINK(1)"
    save(results / "gpu", content)
    export(results, tmp_path / "out.csv", "csv")
    assert rows_of(tmp_path / "out.csv")["gpu"]["model_id"] == "'=HYPERLINK(1)"


def test_parquet(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert export(results, out, "parquet") == 0
    rows = {row["folder"]: row for row in parquet.read_table(out).to_pylist()}
    assert rows["gpu"]["energy_total_j"] == pytest.approx(10_000)
    assert rows["gpu"]["batch_size"] == 4 and rows["gpu"]["gpu_cost_per_1000_images_usd"] is None
    assert rows["cpu"]["energy_total_j"] is None


def test_the_toolkit_of_the_field_loads_the_export(results: Path, tmp_path: Path) -> None:
    from mlenergy.data.records import DiffusionRuns

    out = tmp_path / "data"
    assert export(results, out, "mlenergy") == 0
    [run] = DiffusionRuns.from_parquet(out / "runs" / "diffusion.parquet", base_dir=out)
    assert (run.task, run.model_id, run.gpu_model) == (
        "text-to-image",
        "black-forest-labs/FLUX.1-dev",
        "H200",
    )
    assert (run.num_gpus, run.ulysses_degree, run.ring_degree, run.batch_size) == (2, 2, 1, 4)
    assert (run.height, run.width, run.inference_steps, run.weight_precision) == (1024, 768, 28, "bfloat16")
    assert run.batch_latency_s == pytest.approx(10)
    assert run.energy_per_generation_joules == pytest.approx(1250)
    assert run.throughput_generations_per_sec == pytest.approx(0.4)
    assert run.avg_power_watts == pytest.approx(500)
    assert run.total_params_billions == pytest.approx(16.87, abs=0.01)
    power = run.timelines()
    # GPU-b's 300 W until 1.5 s, then 500 W, told at GPU-a's times.
    assert list(power["value"]) == [500.0, 500.0, 700.0]
    assert list(power["relative_time_s"]) == [0.0, 1.0, 2.0]
    assert list(run.timelines(metric="temperature")["value"]) == [90.0, 91.0, 93.0]
    assert list(DiffusionRuns.from_directory(out)) == [run]


def test_the_toolkit_computes_the_same_from_raw_files(results: Path, tmp_path: Path) -> None:
    from mlenergy.data.records import DiffusionRuns

    out = tmp_path / "data"
    export(results, out, "mlenergy")
    [ours] = DiffusionRuns.from_directory(out)
    [theirs] = DiffusionRuns.from_raw_results(out, config_dir=out / "configs", n_workers=1)
    for name in ("batch_latency_s", "avg_power_watts", "energy_per_generation_joules"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
    for name in ("model_id", "gpu_model", "num_gpus", "batch_size", "height", "width", "inference_steps"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_a_toolkit_export_replaces_an_earlier_one_and_nothing_else(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    export(results, out, "mlenergy")
    (results / "gpu" / "results.json").unlink()
    save(results / "other", result((1.0,), (100.0,)))
    assert export(results, out, "mlenergy") == 0
    assert len(list(out.glob("diffusion/**/results.json"))) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty"):
        export(results, tmp_path / "mine", "mlenergy")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_held_values_are_the_last_ones_known() -> None:
    samples = [(1.0, 10.0), (2.0, None), (3.0, 30.0)]
    assert held(samples, [0.0, 1.0, 2.5, 3.0, 9.0]) == [[0, 10], [1, 10], [2.5, 10], [3, 30], [9, 30]]
    assert held([(1.0, None)], [1.0]) == []


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-16GB", "V100"),
    ],
)
def test_short_names_of_gpus(name: str, short: str) -> None:
    assert short_gpu_name(name) == short


def test_emissions(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "emissions.csv"
    assert export(results, out, "emissions", "--grid_g_per_kwh", "400") == 0
    rows = rows_of(out)
    row = rows["gpu"]
    assert float(row["gpu_energy"]) == pytest.approx(10_000 / 3.6e6)
    assert float(row["cpu_energy"]) == pytest.approx(720 / 3.6e6)
    assert row["ram_energy"] == ""  # not known, not 0
    assert float(row["energy_consumed"]) == pytest.approx(10_720 / 3.6e6)
    assert float(row["emissions"]) == pytest.approx(10_720 / 3.6e6 * 0.4)
    assert float(row["emissions_rate"]) == pytest.approx(10_720 / 3.6e6 * 0.4 / 20)
    assert float(row["duration"]) == pytest.approx(20)
    assert float(row["gpu_power"]) == pytest.approx(500)
    assert set(rows) == {"gpu"}
    assert "left out: cpu/results.json: its energy is not known" in capsys.readouterr().out


def test_no_emissions_without_a_factor_of_the_user(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --grid_g_per_kwh"):
        export(results, tmp_path / "emissions.csv", "emissions")
    assert not (tmp_path / "emissions.csv").exists()


def test_openmetrics_escapes_labels() -> None:
    record = ResultRecord(
        folder='a"b\\c\nd',
        file="results.json",
        state="complete",
        time_per_image_mean_s=2.5,
        peak_memory_gb=34.5,
    )
    text = exposition([record])
    assert 'mlenergy_image_time_seconds{folder="a\\"b\\\\c\\nd"} 2.5\n' in text
    assert 'mlenergy_peak_memory_bytes{folder="a\\"b\\\\c\\nd"} 34500000000.0\n' in text
    assert "energy_joules{" not in text  # not known: no sample
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "csv", "--usd_per_kwh", "-1"), "0 or more"),
        (("--format", "csv", "--grid_g_per_kwh", "400"), "is for --format emissions"),
        (("--format", "mlenergy", "--usd_per_kwh", "1"), "no place for prices"),
    ],
)
def test_options_that_cannot_be(results: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        main([str(results), *options])


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        main([str(tmp_path / "absent"), "--format", "csv"])
    with pytest.raises(UserError, match="no complete result"):
        main([str(tmp_path), "--format", "csv"])
    save(tmp_path / "torn", "{")
    with pytest.raises(UserError, match=r"torn.*not whole JSON"):
        main([str(tmp_path), "--format", "csv"])


def test_a_format_that_fits_no_result_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "results" / "cpu", result(on_cpu=True))
    assert export(tmp_path / "results", tmp_path / "out", "mlenergy") == 2
    assert "no result fits the format mlenergy" in capsys.readouterr().err


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Eight videos of 81 frames at 16 a second on two GPUs, in 20 s and 10,000 J; and one run on a CPU."""
    folder = tmp_path / "videos"
    content = result(SECONDS, JOULES, video=True)
    content["energy_measurement"] |= {"cpu_package_j": 720.0, "dram_j": None}
    save(folder / "gpu", content)
    save(folder / "cpu", result(on_cpu=True, video=True))
    return folder


# Of the run on GPUs, each by hand.
OF_VIDEOS = {
    "time_per_video_mean_s": 20 / 8,
    "throughput_videos_per_s": 8 / 20,
    "throughput_frames_per_s": 8 * 81 / 20,
    "video_seconds_per_s": 8 * 81 / 16 / 20,
    "real_time_factor": 20 / (8 * 81 / 16),
    "energy_per_video_mean_j": 10_000 / 8,
    "energy_per_frame_j": 10_000 / 8 / 81,
    "energy_per_video_second_j": 10_000 / (8 * 81 / 16),
    "energy_per_1000_videos_wh": 1250 / 3.6,
    "energy_delay_per_video_j_s": 1250 * 10,
}


def of_images(names: Iterable[str]) -> list[str]:
    """Names of figures that count images."""
    return [name for name in names if "image" in name]


def test_emissions_of_videos_are_those_of_their_joules(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "emissions.csv"
    assert export(videos, out, "emissions", "--grid_g_per_kwh", "400") == 0
    rows = rows_of(out)
    assert set(rows) == {"gpu"} and "left out: cpu/results.json" in capsys.readouterr().out
    assert float(rows["gpu"]["gpu_energy"]) == pytest.approx(10_000 / 3.6e6)
    assert float(rows["gpu"]["cpu_energy"]) == pytest.approx(720 / 3.6e6)
    assert float(rows["gpu"]["emissions"]) == pytest.approx(10_720 / 3.6e6 * 0.4)
    assert float(rows["gpu"]["duration"]) == pytest.approx(20)


def test_a_tracker_gets_the_figures_of_videos_and_none_of_images(videos: Path) -> None:
    figures = metrics_of(load_result(videos / "gpu" / "results.json").record, Prices())
    assert {name: figures[name] for name in OF_VIDEOS} == pytest.approx(OF_VIDEOS)
    assert of_images(figures) == []
    on_cpu = metrics_of(load_result(videos / "cpu" / "results.json").record, Prices())
    assert on_cpu["time_per_video_mean_s"] > 0 and not any("energy" in name for name in on_cpu)


@pytest.mark.full
def test_codecarbon_has_the_same_columns() -> None:
    import dataclasses

    data = pytest.importorskip("codecarbon.output_methods.emissions_data")
    from mlenergy.diffusion.export.emissions import COLUMNS

    assert tuple(one.name for one in dataclasses.fields(data.EmissionsData)) == COLUMNS


@pytest.mark.full
def test_prometheus_reads_the_openmetrics(results: Path, tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    out = tmp_path / "results.prom"
    assert export(results, out, "openmetrics") == 0
    found = {family.name: family for family in parser.text_string_to_metric_families(out.read_text())}
    samples = {
        sample.labels["folder"]: sample.value for sample in found["mlenergy_image_time_seconds"].samples
    }
    assert samples["gpu"] == pytest.approx(2.5)
    [energy] = found["mlenergy_image_energy_joules"].samples
    assert energy.value == pytest.approx(1250) and energy.labels["model_id"] == "black-forest-labs/FLUX.1-dev"


@pytest.mark.full
def test_mlflow_reads_its_store(results: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    out = tmp_path / "mlflow.db"
    assert export(results, out, "mlflow") == 0
    runs = mlflow.MlflowClient(f"sqlite:///{out}").search_runs(
        [mlflow.MlflowClient(f"sqlite:///{out}").get_experiment_by_name("mlenergy-diffusion").experiment_id]
    )
    found = {run.info.run_name: run.data for run in runs}
    assert set(found) == {"gpu", "cpu"}
    assert found["gpu"].metrics["energy_per_image_mean_j"] == pytest.approx(1250)
    assert "energy_per_image_mean_j" not in found["cpu"].metrics
    assert found["gpu"].params["model_id"] == "black-forest-labs/FLUX.1-dev"


@pytest.mark.full
def test_mlflow_reads_figures_of_videos(videos: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    out = tmp_path / "mlflow.db"
    assert export(videos, out, "mlflow") == 0
    client = mlflow.MlflowClient(f"sqlite:///{out}")
    known = client.get_experiment_by_name("mlenergy-diffusion").experiment_id
    found = {run.info.run_name: run.data for run in client.search_runs([known])}
    metrics, params = found["gpu"].metrics, found["gpu"].params
    assert {name: metrics[name] for name in OF_VIDEOS} == pytest.approx(OF_VIDEOS)
    assert of_images(metrics) == [] and "energy_per_video_mean_j" not in found["cpu"].metrics
    assert (params["num_frames"], params["fps"]) == ("81", "16")


@pytest.mark.full
def test_wandb_writes_figures_of_videos(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    out = tmp_path / "tracked"
    command = [sys.executable, "-m", "mlenergy.diffusion", "export", str(videos), "--format", "wandb"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120)
    texts = [file.read_bytes() for file in out.glob("wandb/offline-run-*/*.wandb")]
    assert len(texts) == 2
    for text in texts:
        assert b"time_per_video_mean_s" in text and b"real_time_factor" in text and b"num_frames" in text
        assert b"time_per_image" not in text and b"energy_per_image" not in text
    assert sum(b"energy_per_frame_j" in text for text in texts) == 1


@pytest.mark.full
def test_wandb_writes_offline_runs(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    out = tmp_path / "tracked"
    # In a process of its own: its service outlives a run, and it must ask for no network.
    command = [sys.executable, "-m", "mlenergy.diffusion", "export", str(results), "--format", "wandb"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120)
    files = sorted(out.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    # Its format is protocol buffers in blocks: names and numbers stand in it as they are.
    texts = [file.read_bytes() for file in files]
    assert all(b"time_per_image_mean_s" in text and b"model_id" in text for text in texts)
    assert sum(b"energy_per_image_mean_j" in text for text in texts) == 1
    assert sum(b"1250" in text for text in texts) == 1
