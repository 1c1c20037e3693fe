"""Rows, timelines, thumbnails and the published figures of the HTML report: every number from its key."""

from __future__ import annotations

import base64
import copy
import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from result_folders import result
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, gpu_measurement, make_plan, prompt_set

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.report.html.clips import Room, clips_of
from mlenergy.diffusion.report.html.collect import PROMPT_LIMIT, Limits, Report
from mlenergy.diffusion.report.html.extras import inside, thinned, timeline_of
from mlenergy.diffusion.report.html.page import embedded, page_of
from mlenergy.diffusion.report.html.published import published_rows
from mlenergy.diffusion.report.html.rows import row_of
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.media import save_outputs
from mlenergy.diffusion.results.paths import RunPaths


def gpu_result(**changes: Any) -> dict[str, Any]:
    plan = make_plan(**changes)
    record = RunRecord(plan, gpu_measurement(), prompt_set(plan), ENVIRONMENT)
    return build_result(record, [None] * record.completed)


def cpu_result() -> dict[str, Any]:
    plan = cpu_plan()
    record = RunRecord(plan, cpu_measurement(), prompt_set(plan), ENVIRONMENT)
    return build_result(record, [None] * record.completed)


def test_a_row_has_the_measured_numbers() -> None:
    # Windows of 8.0, 8.2, 8.4 and 8.6 s with four images each; 9000, 9100, 9200 and 9300 J.
    row = row_of(gpu_result(), "a/run")
    assert row["s"] == pytest.approx(33.2 / 16)
    assert row["latency"] == pytest.approx(8.3)
    assert row["ips"] == pytest.approx(16 / 33.2)
    assert row["j"] == pytest.approx(36600 / 16)
    assert row["w"] == pytest.approx(36600 / 33.2)
    assert row["gb"] == pytest.approx(34.5)
    # Student's t for 3 degrees of freedom is 3.18245; the windows deviate by 0.2582 s, an image by a quarter.
    assert row["s_ci"] == pytest.approx(3.18245 * 0.258199 / 4 / 2, rel=1e-4)
    assert row["j_ci"] == pytest.approx(3.18245 * 129.0994 / 4 / 2, rel=1e-4)
    assert (row["model"], row["gpu"], row["gpus"]) == ("black-forest-labs/FLUX.1-dev", "NVIDIA H200", 2)
    assert (row["batch"], row["width"], row["height"], row["steps"]) == (4, 1024, 1024, 28)
    assert (row["precision"], row["parallel"], row["options"]) == ("bfloat16", "Ulysses 2", "")
    assert row["name"] == "a/run" and row["task"] == "text-to-image" and row["source"] == "measured"
    assert row["warnings"] == [["drift", "the last third of the iterations is 3.1 % slower than the first"]]


def test_stages_are_means_of_a_window() -> None:
    row = row_of(gpu_result(), "run")
    mean = 8.3
    expected = {
        "text_encode": 0.1 * mean,
        "denoise": 0.8 * mean,
        "vae_decode": 0.08 * mean,
        "other": 0.02 * mean,
    }
    assert row["stages"] == pytest.approx(expected)
    assert row["stage_energy"] == pytest.approx({"denoise": 7600.0, "other": 9150.0 - 7600.0})


def test_what_is_not_known_has_its_reason() -> None:
    row = row_of(cpu_result(), "run")
    assert row["j"] is None and row["j_reason"] == "no GPU takes part: the run is on the CPU"
    assert row["gb"] is None and row["gb_reason"]
    assert row["stage_energy"] is None and row["stage_energy_reason"] == "no GPU takes part"
    assert row["on_gpu"] is False and row["gpu"] == "Example CPU 9000"


def test_degrees_and_optimizations_are_named() -> None:
    many = Parallelism(ulysses=2, ring=2, cfg=2, data=2, parallel_vae=True)
    optimizations = Optimizations(compile_mode="regional", vae_slicing=True)
    row = row_of(gpu_result(parallel=many, optimizations=optimizations), "run")
    assert row["parallel"].count(" × ") == 4 and row["gpus"] == 16
    assert row["options"] == "compile_mode regional, vae_slicing"


def test_a_doubtful_number_is_marked() -> None:
    assert row_of(gpu_result(), "run")["doubtful"] is False  # drift alone does not make it so
    result = gpu_result()
    result["warnings"].append({"code": "power_mismatch", "message": "two readings differ"})
    assert row_of(result, "run")["doubtful"] is True


def write_timeline(file: Path, count: int = 1000) -> None:
    # Two GPUs, 10 samples a second: 100 W and 300 W; window 0 from 1 to 3 s.
    times = [k / 10 - 1 for k in range(count)]
    window = [0 if 1 <= t <= 3 else None for t in times]
    table = pa.table(
        {
            "node": ["n0"] * count * 2,
            "uuid": ["GPU-a"] * count + ["GPU-b"] * count,
            "time_s": times * 2,
            "power_w": [100.0] * count + [300.0] * count,
            "window": pa.array(window * 2, pa.int64()),
        }
    )
    parquet.write_table(table, file)


def test_a_timeline_is_thinned_a_gpu_at_a_time(tmp_path: Path) -> None:
    write_timeline(tmp_path / "timeline.parquet")
    line = timeline_of(tmp_path / "timeline.parquet")
    assert line is not None
    assert line["gpus"] == ["n0 GPU-a", "n0 GPU-b"]
    assert [set(power) for power in line["power_w"]] == [{100.0}, {300.0}]
    assert line["windows"] == [[1.0, 3.0]]
    assert all(100 < len(times) <= 240 for times in line["time_s"])
    assert timeline_of(tmp_path / "absent.parquet") is None


def test_thinning_keeps_the_mean() -> None:
    points = [(float(k), float(k % 7)) for k in range(960)]
    few = thinned(points, 240)
    assert len(few) == 240
    assert few[0] == (1.5, (0 + 1 + 2 + 3) / 4)
    assert sum(w for _, w in few) / 240 == pytest.approx(sum(w for _, w in points) / 960)
    assert thinned(points[:240], 240) == points[:240]


def test_published_figures_are_as_published() -> None:
    rows = published_rows()
    file = Path(__file__).parents[2] / "mlenergy/diffusion/data/published-text-to-image.csv"
    lines = list(csv.DictReader(file.read_text().splitlines()))
    images = [row for row in rows if row["task"] == "text-to-image"]
    assert len(images) == len(lines) == 479
    assert sum(row["task"] == "text-to-video" for row in rows) == 287
    for row, line in zip(images, lines, strict=True):
        # Three published figures that say the same in two ways.
        assert 1 / row["s"] == pytest.approx(float(line["throughput_images_per_sec"]), rel=1e-4)
        assert row["w"] * row["s"] == pytest.approx(row["j"], rel=1e-3)
        assert row["source"] == "published" and row["gb"] is None and row["gb_reason"]


def saved_run(folder: Path, *, prompt: str = "a fox", images: int = 2) -> dict[str, Any]:
    """A result with image files: red ones."""
    result = gpu_result()
    folder.mkdir(parents=True)
    for k, image in enumerate(result["generation_results"][:images]):
        name = f"image_{k}.png"
        Image.new("RGB", (1024, 512), "red").save(folder / name)
        image |= {"image": name, "prompt": prompt, "seed": 42 + k}
    return result


def test_images_are_small_and_grouped_by_prompt(tmp_path: Path) -> None:
    report = Report(Limits(images=3))
    for name in ("a", "b"):
        report.add(saved_run(tmp_path / name), tmp_path / name, name)
    data = report.data("", False, datetime.now(UTC))
    assert [[image[:2] for image in row["images"]] for row in data["rows"]] == [[[0, 42], [0, 43]], [[0, 42]]]
    assert data["prompts"] == ["a fox"]
    assert all(
        image[2].startswith("data:image/jpeg;base64,") for row in data["rows"] for image in row["images"]
    )
    assert max(len(image[2]) for row in data["rows"] for image in row["images"]) < 10_000


def test_images_beyond_the_limit_are_said_to_be_missing(tmp_path: Path) -> None:
    report = Report(Limits(images=2))
    for name in ("a", "b"):
        report.add(saved_run(tmp_path / name), tmp_path / name, name)
    assert report.data("", False, datetime.now(UTC))["problems"] == [
        ("images", "those of 1 run are left out: the page holds 2 (--images)")
    ]


def test_images_that_do_not_open_are_listed(tmp_path: Path) -> None:
    result = saved_run(tmp_path / "run", images=3)
    (tmp_path / "run" / "image_0.png").write_bytes(b"\x89PNG torn")
    (tmp_path / "run" / "image_1.png").unlink()
    report = Report()
    report.add(result, tmp_path / "run", "run")
    assert [name for name, _ in report.problems] == ["run", "run"]
    assert "image_0.png: not an image" in report.problems[0][1]
    assert len(report.rows[0]["images"]) == 1


def test_a_result_cannot_publish_files_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(ValueError, match="outside"):
            inside(tmp_path / "run", name)


@pytest.mark.parametrize("key", ["configuration", "statistics", "batch_size", "environment", "iterations"])
def test_content_that_is_no_result_is_listed(key: str, tmp_path: Path) -> None:
    for value in (None, "text", 3, []):
        report = Report()
        report.add(gpu_result() | {key: value}, tmp_path, "odd")
        assert len(report.rows) + len(report.problems) == 1
        assert not report.problems or report.problems[0][0] == "odd"
    result = gpu_result()
    del result[key]
    report = Report()
    report.add(result, tmp_path, "odd")
    assert not report.rows and report.problems[0][0] == "odd"


def test_a_huge_prompt_is_cut(tmp_path: Path) -> None:
    report = Report()
    report.add(saved_run(tmp_path / "run", prompt="x" * 1_000_000), tmp_path / "run", "run")
    [prompt] = report.data("", False, datetime.now(UTC))["prompts"]
    assert prompt == "x" * PROMPT_LIMIT + "…"


HOSTILE = "</script><script>alert(1)</script><!-- \u2028 & ]]> <img src=x onerror=alert(1)>"


def test_hostile_text_stays_text() -> None:
    text = embedded({"prompt": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"prompt": HOSTILE}
    page = page_of(HOSTILE, {"prompt": HOSTILE})
    assert page.count("<script") == 2 and "<img" not in page


def test_many_runs_of_one_machine_share_its_record(tmp_path: Path) -> None:
    report = Report()
    for k in range(3):
        report.add(copy.deepcopy(gpu_result()), tmp_path, str(k))
    data = report.data("", False, datetime.now(UTC))
    assert len(data["environments"]) == 1 and len(data["rows"]) == 3
    assert [row["details"] for row in data["rows"]] == [0, 1, 2]


def test_no_row_comes_from_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        embedded({"s": float("nan")})


def test_lora_is_an_option() -> None:
    result = gpu_result()
    result["configuration"] = result["configuration"] | {"lora": "style.safetensors"}
    assert row_of(result, "run")["options"] == "LoRA"


def test_clips_stand_in_the_page_while_there_is_room(tmp_path: Path) -> None:
    folder, page_folder = tmp_path / "runs/a #1", tmp_path / "pages"
    paths = RunPaths(folder, "tiny-wan")
    requests = prompt_set(cpu_plan(batch_size=1, benchmark_iters=4)).requests
    names = save_outputs(paths, requests, np.zeros((4, 5, 32, 32, 3), np.uint8), 8)
    outputs = [{"video": name, "prompt": "a fox", "seed": 42} for name in names]
    size = (folder / names[0]).stat().st_size
    (folder / names[2]).write_text("no video")
    outputs[3]["video"] = "../../outside.mp4"
    room = Room(per_clip=size, left=size)
    clips, problems = clips_of({"generation_results": outputs}, folder, 4, room, page_folder)
    first, second = clips
    assert (
        base64.b64decode(first["clip"].removeprefix("data:video/mp4;base64,"))
        == (folder / names[0]).read_bytes()
    )
    assert "clip" not in second and second["href"] == "./../runs/a%20%231/" + names[1]
    assert all(clip["src"].startswith("data:image/jpeg;base64,") for clip in clips)
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "not a video",
        "the file lies outside of its result folder",
    ]
    assert room.left == 0 and not Room(per_clip=size - 1, left=10 * size).takes(size)


def test_a_row_of_a_video_has_its_own_figures() -> None:
    row = row_of(result((8.0, 12.0), (6000.0, 4000.0), video=True), "a run")
    assert (row["task"], row["frames"], row["fps"]) == ("text-to-video", 81, 16)
    assert (row["s"], row["j"], row["ips"]) == pytest.approx((2.5, 1250, 0.4))
    assert (row["frames_per_s"], row["real_time"]) == pytest.approx((32.4, 2.5 * 16 / 81))
    published = [one for one in published_rows() if one["task"] == "text-to-video"]
    assert all(one["frames_per_s"] * one["real_time"] == pytest.approx(one["fps"]) for one in published)
