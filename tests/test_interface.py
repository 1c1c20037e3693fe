"""The Python interface: the same run, and results as a DataFrame."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from result_folders import result, save

import mlenergy.diffusion.benchmark as module
from mlenergy.diffusion import benchmark as through_the_package
from mlenergy.diffusion import interface
from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.interface import argv_of, benchmark, load_results

TINY: dict[str, Any] = {
    "dataset": "bundled",
    "height": 64,
    "width": 64,
    "inference_steps": 2,
    "device": "cpu",
}


@pytest.fixture
def quick_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface.subprocess, "Popen", forked.Popen)


def test_a_run_and_its_numbers(
    quick_starts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**TINY, "base_dir": str(tmp_path), "batch_size": 2, "benchmark_iters": 2, "ulysses_degree": 2}
    done = benchmark("tiny/flux", **options)
    assert done.folder.parent == tmp_path
    assert done.content["completed"] == 4
    assert done.seconds_per_image == pytest.approx(1 / done.images_per_second)
    assert done.joules_per_image is None and done.peak_memory_gb is None
    assert len(done.images) == 4 and all(image.is_file() for image in done.images)
    assert str(done.folder / "results.json") in capsys.readouterr().out  # the run's own lines come through
    again = benchmark("tiny/flux", quiet=True, **options)  # it is there already
    assert again.content == done.content
    assert capsys.readouterr().out == ""
    table = load_results(tmp_path)
    [row] = table.to_dict("records")
    assert row["state"] == "complete" and row["time_per_image_mean_s"] == pytest.approx(
        done.seconds_per_image
    )


def test_a_mistake_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no option ulyses_degree \(did you mean ulysses_degree\?\)"):
        benchmark("tiny/flux", ulyses_degree=2)
    with pytest.raises(UserError, match="dry_run measures nothing"):
        benchmark("tiny/flux", dry_run=True, **TINY)
    with pytest.raises(UserError, match="heads"):
        benchmark("tiny/flux", ulysses_degree=5, base_dir=str(tmp_path), **TINY)


def test_a_failed_run_tells_its_error(quick_starts: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot"):
        benchmark("tiny/flux", quiet=True, base_dir=str(tmp_path / "file"), **TINY)


def test_options_are_those_of_the_command_line() -> None:
    argv = argv_of("tiny/flux", {"ulysses_degree": 2, "batch_size": 4, "save_images": False, "seed": None})
    args = parse_args(argv)
    assert (args.ulysses_degree, args.save_images) == (2, False)
    assert (args.workload.model_id, args.workload.batch_size, args.workload.seed) == ("tiny/flux", 4, 42)


@pytest.mark.parametrize(
    ("model_id", "options", "workload"),
    [
        ("tiny/wan", {}, "text-to-video"),
        ("someone/a-video-model", {"num_frames": 9}, "text-to-video"),
        ("someone/a-video-model", {"workload": "text-to-video"}, "text-to-video"),
        ("someone/a-model", {"height": 64}, "text-to-image"),
    ],
)
def test_the_workload_is_that_of_the_model_or_of_the_options(
    model_id: str, options: Any, workload: str
) -> None:
    assert f"workload:{workload}" in argv_of(model_id, options)


def test_figures_of_videos_and_those_of_images_are_apart(tmp_path: Path) -> None:
    made = interface.Result(tmp_path, result((8.0, 12.0), (6000.0, 4000.0), video=True, images=True))
    assert (made.seconds_per_video, made.joules_per_video) == pytest.approx((2.5, 1250))
    assert (made.videos_per_second, made.frames_per_second) == pytest.approx((0.4, 0.4 * 81))
    assert made.real_time_factor == pytest.approx(2.5 * 16 / 81)
    assert made.joules_per_frame == pytest.approx(1250 / 81)
    assert made.videos[0] == tmp_path / "video_outputs/0.mp4" and len(made.videos) == 8
    for name in ("seconds_per_image", "joules_per_image", "images_per_second", "images"):
        with pytest.raises(AttributeError, match="this run made videos; it has no figures of images"):
            getattr(made, name)
    with pytest.raises(AttributeError, match="this run made images"):
        _ = interface.Result(tmp_path, result()).seconds_per_video


def test_no_option_of_the_run_has_the_name_of_one_of_the_workload() -> None:
    of_run = {one.name for one in dataclasses.fields(BenchmarkArgs)}
    assert not of_run & {one.name for kind in (TextToImage, TextToVideo) for one in dataclasses.fields(kind)}


def test_every_state_has_a_row(tmp_path: Path) -> None:
    save(tmp_path / "a", result((8.0, 12.0), (6000.0, 4000.0)))
    save(tmp_path / "b" / "torn", "{")
    table = load_results(tmp_path / "a", tmp_path / "b").set_index("state")
    assert table.loc["complete", "energy_per_image_mean_j"] == pytest.approx(1250)
    assert "not whole JSON" in table.loc["broken", "reason"]
    assert len(load_results(str(tmp_path / "a" / "results.json"))) == 1
    assert len(load_results(str(tmp_path / "*"))) == 2
    with pytest.raises(UserError, match="there is no"):
        load_results(tmp_path / "absent")


def test_an_empty_folder_is_an_empty_table(tmp_path: Path) -> None:
    assert load_results(tmp_path).empty


def test_the_name_works_before_and_after_the_module_of_the_same_name_is_imported() -> None:
    code = (
        "from mlenergy.diffusion import benchmark, load_results; import sys;"
        "assert 'torch' not in sys.modules;"
        "assert benchmark.__module__ == 'mlenergy.diffusion.interface', benchmark"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    # This process has imported the module, which stands where the function stood; it can be called as well.
    assert through_the_package is module
    with pytest.raises(UserError, match="there is no option"):
        through_the_package("tiny/flux", no_such_option=1)  # type: ignore[operator]
