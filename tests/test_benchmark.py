"""The main job from the command line to the result folder, with the real torchrun, xfuser and diffusers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODULE = ["-m", "mlenergy.diffusion.benchmark"]
FILE = [str(ROOT / "mlenergy" / "diffusion" / "benchmark.py")]
TINY = ["--workload.model_id", "tiny/flux", "--workload.dataset", "bundled", "--workload.height", "64"]
TINY += ["--workload.width", "64", "--workload.inference_steps", "2"]


def run(command, base_dir, *options, cwd=None, start=forked.run, **environ):
    words = [*command, "workload:text-to-image", *TINY, "--workload.base_dir", str(base_dir), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environ}
    return start(words, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def torchrun(processes, entry):
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        *entry,
    ]


def error_lines(done):
    return [line for line in done.stderr.splitlines() if line.startswith("mlenergy: error:")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run on two ranks: its process, base folder, result folder and results."""
    base = tmp_path_factory.mktemp("base")
    done = run(
        torchrun(2, MODULE),
        base,
        "--ulysses_degree",
        "2",
        "--workload.batch_size",
        "2",
        "--benchmark_iters",
        "3",
    )
    assert done.returncode == 0, done.stderr
    (folder,) = base.iterdir()
    return done, base, folder, json.loads((folder / "results.json").read_text())


def test_the_run_is_whole(finished):
    _, _, folder, result = finished
    assert result["completed"] == 6
    assert len(result["iterations"]) == 3
    assert result["generation_time"] == pytest.approx(sum(i["duration_s"] for i in result["iterations"]))
    assert result["throughput_images_per_sec"] == pytest.approx(6 / result["generation_time"])
    assert result["configuration"]["parallel"]["ulysses"] == 2
    assert result["configuration"]["engine"] == "xdit"
    requests = json.loads((folder / "requests.json").read_text())["requests"]
    assert [r["prompt"] for r in requests] == result["prompts"]


def test_the_images_are_files_in_the_order_of_the_prompts(finished):
    _, _, folder, result = finished
    names = [entry["image"] for entry in result["generation_results"]]
    assert names == sorted(names)
    assert all(name.startswith("image_outputs/tiny-flux_000") for name in names)
    pictures = [np.asarray(Image.open(folder / name)) for name in names]
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_without_a_gpu_energy_is_null_with_a_reason(finished):
    done, _, _, result = finished
    assert result["total_energy_j"] is None
    assert result["energy_per_image_j"] is None
    assert result["energy_measurement"]["reason"]
    assert "energy" in done.stdout.lower()


def test_stdout_is_the_summary_and_library_output_is_in_the_log(finished):
    done, _, folder, _ = finished
    assert "tiny/flux" in done.stdout
    assert "Gloo" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "measured 3/3" in done.stderr
    assert (folder / "driver_log.txt").stat().st_size > 0
    assert not (folder / ".lock").exists()


def test_both_ranks_and_their_parameters_are_in_the_result(finished):
    ranks = finished[3]["memory"]["ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    assert all(rank["parameter_bytes"]["transformer"] > 0 for rank in ranks)


def test_a_complete_result_is_skipped_also_where_a_kill_cut_its_swap_short(finished):
    _, base, folder, _ = finished
    before = (folder / "results.json").stat().st_mtime_ns
    log = (folder / "driver_log.txt").read_bytes()
    (folder / ".new" / "left").mkdir(parents=True)
    (folder / "results.json").rename(folder / ".new" / "results.json")
    again = run(
        torchrun(2, MODULE),
        base,
        "--ulysses_degree",
        "2",
        "--workload.batch_size",
        "2",
        "--benchmark_iters",
        "3",
    )
    assert again.returncode == 0, again.stderr
    assert "is complete; --overwrite_results measures again" in again.stdout
    assert again.stdout.startswith(finished[0].stdout)
    assert (folder / "results.json").stat().st_mtime_ns == before
    assert (folder / "driver_log.txt").read_bytes() == log
    assert not (folder / ".new").exists()


def test_the_console_command_prints_a_saved_result_without_importing_torch(finished):
    done, base, _, _ = finished
    command = [str(Path(sys.executable).with_name("mlenergy")), "run", "--ulysses_degree", "2"]
    options = ["--workload.batch_size", "2", "--benchmark_iters", "3"]
    without_torch = {"PYTHONPATH": str(ROOT / "tests" / "support" / "stuck_torch")}
    again = run(command, base, *options, start=subprocess.run, **without_torch)
    assert again.returncode == 0 and not again.stderr
    *summary, last = again.stdout.splitlines()
    assert summary == done.stdout.splitlines()
    assert last.endswith("is complete; --overwrite_results measures again")


@pytest.mark.full
def test_started_by_file_path_on_one_rank_from_anywhere(tmp_path):
    done = run(torchrun(1, FILE), tmp_path / "out", "--benchmark_iters", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert "ulysses-1+ring-1" in folder.name


def test_without_torchrun_one_rank_and_the_same_images_as_two(tmp_path, finished):
    done = run([sys.executable, *MODULE], tmp_path, "--workload.batch_size", "2", "--benchmark_iters", "3")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    one = json.loads((folder / "results.json").read_text())
    assert one["prompts"] == finished[3]["prompts"]
    for entry, other in zip(one["generation_results"], finished[3]["generation_results"], strict=True):
        a = np.asarray(Image.open(folder / entry["image"])).astype(int)
        b = np.asarray(Image.open(finished[2] / other["image"])).astype(int)
        assert np.abs(a - b).max() <= 1  # 1e-5 of the range can tip a rounding to bytes


def test_the_console_command_starts_torchrun_itself(tmp_path):
    command = [
        str(Path(sys.executable).with_name("mlenergy")),
        "run",
        "--ring_degree",
        "2",
        "--benchmark_iters",
        "1",
    ]
    done = run(command, tmp_path, "--no-save_images", start=subprocess.run)  # as a user starts it
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "results.json").read_text())
    assert result["configuration"]["parallel"]["ring"] == 2
    assert not (folder / "image_outputs").exists()
    assert result["generation_results"][0]["image"] is None


def test_an_overwritten_run_replaces_all_of_the_old_one(tmp_path):
    command = [sys.executable, *MODULE, "--engine", "diffusers"]
    assert run(command, tmp_path, "--benchmark_iters", "1").returncode == 0
    (folder,) = tmp_path.iterdir()
    (folder / "image_outputs" / "stale.png").write_bytes(b"old")
    done = run(command, tmp_path, "--benchmark_iters", "1", "--overwrite_results")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert not (folder / "image_outputs" / "stale.png").exists()


def test_a_failed_overwrite_keeps_the_old_result(tmp_path):
    command = [sys.executable, *MODULE, "--engine", "diffusers"]
    assert run(command, tmp_path, "--benchmark_iters", "1").returncode == 0
    (folder,) = tmp_path.iterdir()
    before = (folder / "results.json").read_bytes()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").write_text("no folder")  # where the tiny model would be built
    done = run(
        command,
        tmp_path,
        "--benchmark_iters",
        "1",
        "--overwrite_results",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode != 0
    assert len(error_lines(done)) == 1
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ulysses_degree", "3"], "--ulysses_degree 3 = 3, but 2 processes were started"),
        (["--workload.width", "100"], "not a multiple of 16"),
        (["--workload.dataset", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_mistake_is_one_line_from_one_rank(tmp_path, options, complaint):
    done = run(torchrun(2, MODULE), tmp_path, *options)
    assert done.returncode != 0
    (line,) = error_lines(done)
    assert complaint in line
    assert "UserError" not in done.stderr


def test_the_console_command_leaves_torchruns_report_out(tmp_path):
    command = [str(Path(sys.executable).with_name("mlenergy")), "run", "--ulysses_degree", "2"]
    done = run(command, tmp_path, "--workload.dataset", "nowhere.txt")
    assert done.returncode == 2
    assert len(error_lines(done)) == 1
    assert "Traceback" not in done.stderr


def test_a_base_dir_that_cannot_be_made_is_named_before_anything_loads(tmp_path):
    (tmp_path / "file").write_text("")
    done = run([sys.executable, *MODULE], tmp_path / "file" / "base")
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert "choose a --workload.base_dir" in line


def test_a_dry_run_starts_and_writes_nothing(tmp_path):
    done = run([sys.executable, *MODULE, "--dry_run", "--ulysses_degree", "2"], tmp_path / "base")
    assert done.returncode == 0, done.stderr
    assert "torchrun --nproc_per_node=2" in done.stdout
    assert not (tmp_path / "base").exists()
