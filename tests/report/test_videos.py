"""Results of videos in every reader: figures by hand, and none of them under a name of images."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from result_folders import result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.export.command import main as export
from mlenergy.diffusion.report.compare_command import main as compare
from mlenergy.diffusion.report.run_view import print_effects, print_summary
from mlenergy.diffusion.report.show_command import main as show
from mlenergy.diffusion.results.collect import collect
from mlenergy.diffusion.results.flatten import flatten
from mlenergy.diffusion.results.index import read_index, refresh
from mlenergy.diffusion.results.paths import RunPaths

# Wan 2.1 1.3B on two H200s, batches of four videos of 81 frames at 16 frames per second, 5.0625 s each: eight
# of them in 20 s with 10 kJ, so 2.5 s and 1250 J a video.
SECONDS, JOULES = (8.0, 12.0), (6000.0, 4000.0)
FRAMES, LENGTH_S = 81, 5.0625
OF_IMAGES = ("_image", "images_", "_images")


@pytest.fixture
def video():
    return result(SECONDS, JOULES, video=True)


@pytest.fixture
def runs(tmp_path, monkeypatch, video):
    """A run of videos and one of images, which took 2.1 s an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    save(tmp_path / "runs/video", video)
    save(tmp_path / "runs/image", seconds=(8.4, 8.4))
    return tmp_path / "runs"


def test_the_figures_of_a_result_by_hand(video):
    assert (video["schema_version"], video["unit"]) == (2, "video")
    assert (video["num_frames"], video["fps"], video["video_length_s"]) == (FRAMES, 16, LENGTH_S)
    assert video["throughput_videos_per_sec"] == pytest.approx(8 / 20)
    assert video["avg_time_per_video"] == pytest.approx(2.5)
    assert video["throughput_frames_per_sec"] == pytest.approx(8 * FRAMES / 20)
    assert video["video_seconds_per_sec"] == pytest.approx(8 * LENGTH_S / 20)
    assert video["real_time_factor"] == pytest.approx(2.5 / LENGTH_S)
    assert video["energy_per_video_j"] == pytest.approx(1250)
    assert video["energy_per_frame_j"] == pytest.approx(1250 / FRAMES)
    assert video["energy_per_video_second_j"] == pytest.approx(1250 / LENGTH_S)
    assert [key for key in video if any(word in key for word in OF_IMAGES)] == []
    assert [one["videos"] for one in video["iterations"]] == [4, 4]
    assert all("video" in one and "image" not in one for one in video["generation_results"])


def test_the_summary_has_both_guidance_scales_and_what_tiles_and_caches_did(video):
    optimizations = {"vae_tiling": True, "cache": "fbcache", "cache_threshold": 0.12}
    configuration = {**video["configuration"], "guidance_scale_2": 3.0, "boundary_ratio": 0.875}
    of_each = {"transformer": {"computed_share": 1.0}, "transformer_2": {"computed_share": 0.25}}
    cache = {"computed_share": 0.5, "computed_steps_share": 0.4, "denoisers": of_each}
    decoded = {"decoder_calls": 588, "images_per_call": 1, "tiled": True, "cells_ratio": 1.6467}
    rank = {"attention": {"kernels": {}}, "cache": cache, "vae": decoded}
    other = {**rank, "vae": {"decoder_calls": 0, "images_per_call": None, "tiled": None, "cells_ratio": None}}
    found = {**video, "configuration": {**configuration, "knobs": optimizations}, "effects": [other, rank]}
    out = io.StringIO()
    print_summary(found, RunPaths(Path("run"), "wan"), out)
    print_effects(found, out)
    lines = {line[2:17].strip(): line[17:] for line in out.getvalue().splitlines()[1:]}
    assert lines["work"].endswith(", then 3 (boundary 0.875)")
    assert lines["lossy"] == "cache fbcache at 0.12, VAE in tiles: videos differ from the exact run's"
    assert lines["cache"].endswith("40% of the steps in full (transformer 100%, transformer_2 25%)")
    assert lines["decoding"] == (
        "588 calls of the VAE's decoder for each batch, in tiles that overlap: 1.647 times the latents' cells"
    )


def test_without_energy_the_figures_in_joules_are_not_known():
    found = result(SECONDS, video=True)
    assert found["energy_per_frame_j"] is found["energy_per_video_second_j"] is None
    assert flatten(found)["energy_per_frame_j"] is flatten(found)["energy_per_video_second_j"] is None


def test_a_flat_row_has_columns_of_videos_alone(video):
    row = flatten(video)
    assert (row["unit"], row["task"], row["videos_count"]) == ("video", "text-to-video", 8)
    assert (row["num_frames"], row["fps"], row["video_length_s"]) == (FRAMES, 16, LENGTH_S)
    assert row["time_per_video_mean_s"] == pytest.approx(2.5)
    assert row["time_per_video_stdev_s"] == pytest.approx(1 / math.sqrt(2))
    assert row["throughput_videos_per_s"] == pytest.approx(0.4)
    assert row["throughput_frames_per_s"] == pytest.approx(32.4)
    assert row["video_seconds_per_s"] == pytest.approx(2.025)
    assert row["real_time_factor"] == pytest.approx(2.5 / LENGTH_S)
    assert row["energy_per_video_mean_j"] == pytest.approx(1250)
    assert row["energy_per_frame_j"] == pytest.approx(1250 / FRAMES)
    assert row["energy_per_video_second_j"] == pytest.approx(1250 / LENGTH_S)
    assert [name for name in row if any(word in name for word in OF_IMAGES)] == []


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"unit": None}, "foreign"),
        ({"schema_version": 1}, "foreign"),
        ({"schema_version": 3}, "newer"),
        ({"generation_time": 0}, "broken"),
        ({"configuration": {"num_frames": 0, "fps": 16}}, "broken"),
    ],
)
def test_what_cannot_be_a_result_of_videos_is_none(tmp_path, video, changes, state):
    (record,) = collect([str(save(tmp_path / "one", {**video, **changes}))]).others
    assert record.state == state
    assert (record.time_mean_s, record.energy_mean_j) == (None, None)


def test_the_index_knows_both(runs):
    refresh(runs)
    rows = {row["unit"]: row for row in read_index(runs / "index.parquet")}
    assert rows["video"]["time_per_video_mean_s"] == pytest.approx(2.5)
    assert rows["video"]["time_per_image_mean_s"] is rows["image"]["time_per_video_mean_s"] is None
    assert rows["image"]["time_per_image_mean_s"] == pytest.approx(2.1)


def test_a_table_for_images_and_one_for_videos(runs, capsys):
    show(["runs"])
    images, videos = capsys.readouterr().out.split("\n\n")
    assert "s/image" in images and "video" not in images
    assert "s/video" in videos and "image" not in videos
    assert "832x480, 81 frames, 16 fps, 50 steps" in videos
    heading, row = videos.splitlines()[1:3]
    assert heading.split()[0] == "s/video" and "frames/s" in heading and "J/frame" in heading
    assert [float(cell.split(" ±")[0]) for cell in row.replace(",", "").split("  ") if cell.strip()][2:7] == [
        34,
        0.4,
        32.4,
        0.4938,
        15.43,
    ]


def test_the_same_as_csv_markdown_and_json(runs, capsys):
    show(["runs", "--csv"])
    image, video = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (float(image["seconds_per_image"]), image["seconds_per_video"]) == (pytest.approx(2.1), "")
    assert (float(video["seconds_per_video"]), video["seconds_per_image"]) == (2.5, "")
    assert (video["images_per_s"], float(video["frames_per_s"])) == ("", pytest.approx(32.4))
    assert float(video["joules_per_video_second"]) == pytest.approx(1250 / LENGTH_S)
    show(["runs", "--json", "--sort", "seconds", "--reverse"])
    found = json.loads(capsys.readouterr().out)["set_ups"]
    assert [one["unit"] for one in found] == ["video", "image"], "2.5 s, then 2.1 s"
    assert "seconds_per_image" not in found[0] and "seconds_per_video" not in found[1]
    show(["runs/video", "--markdown", "--columns", "seconds,real_time_factor,num_frames"])
    assert capsys.readouterr().out.splitlines()[:3] == [
        "| seconds_per_video | real_time_factor | num_frames |",
        "| --- | --- | --- |",
        "| 2.5 | 0.4938 | 81 |",
    ]


def test_videos_of_other_lengths_are_compared_with_a_word_of_caution(runs, tmp_path, capsys):
    save(tmp_path / "runs/short", seconds=(4.0, 4.0), joules=JOULES, video=True, num_frames=41)
    assert compare(["runs/video", "runs/short"]) == 0
    said = capsys.readouterr().out
    assert "seconds a video" in said and "image" not in said
    assert "num_frames: A 81, B 41" in said
    assert "the videos differ in length or size" in said
    compare(["runs/video", "runs/short", "--json"])
    ratios = {one["figure"]: one["ratio"] for one in json.loads(capsys.readouterr().out)["ratios"]}
    assert ratios["seconds_per_video"] == pytest.approx(1 / 2.5)
    assert set(ratios) == {"seconds_per_video", "joules_per_video"}


def test_videos_and_images_do_not_compare(runs):
    with pytest.raises(UserError, match="runs/video made videos and runs/image images, which do not compare"):
        compare(["runs/video", "runs/image"])
    with pytest.raises(UserError, match="do not compare"):
        compare(["runs"])


def test_the_toolkit_of_the_field_loads_videos(runs, tmp_path):
    from mlenergy.data.records import DiffusionRuns

    out = tmp_path / "data"
    assert export(["runs/video", "--format", "mlenergy", "--out", str(out)]) == 0
    [ours] = DiffusionRuns.from_directory(out)
    [theirs] = DiffusionRuns.from_raw_results(out, config_dir=out / "configs", n_workers=1)
    for run in (ours, theirs):
        assert run.is_text_to_video and (run.num_frames, run.fps) == (FRAMES, 16)
        assert (run.height, run.width, run.inference_steps) == (480, 832, 50)
        assert run.energy_per_generation_joules == pytest.approx(1250)
        assert run.throughput_generations_per_sec == pytest.approx(0.4)
        assert run.batch_latency_s == pytest.approx(10)


def test_exports_have_figures_of_videos_in_their_own_columns(runs, tmp_path):
    table, metrics = tmp_path / "out.csv", tmp_path / "out.prom"
    export(["runs", "--format", "csv", "--out", str(table), "--usd_per_kwh", "0.3"])
    with table.open(newline="") as stream:
        rows = {row["unit"]: row for row in csv.DictReader(stream)}
    assert float(rows["video"]["energy_per_1000_videos_wh"]) == pytest.approx(1250 / 3.6)
    assert float(rows["video"]["energy_delay_per_video_j_s"]) == pytest.approx(12_500)
    of_images = [name for name in rows["video"] if any(word in name for word in OF_IMAGES)]
    assert {rows["video"][name] for name in of_images} == {""}
    assert {value for name, value in rows["image"].items() if "video" in name or "frame" in name} == {""}
    export(["runs", "--format", "openmetrics", "--out", str(metrics)])
    lines = [line for line in metrics.read_text().splitlines() if not line.startswith("#")]
    (real_time,) = [line for line in lines if line.startswith("mlenergy_video_real_time_ratio{")]
    assert 'num_frames="81",fps="16"' in real_time and float(real_time.split()[-1]) == pytest.approx(
        2.5 / LENGTH_S
    )
    assert sum("Wan2.1" in line for line in lines if line.startswith("mlenergy_image")) == 0
