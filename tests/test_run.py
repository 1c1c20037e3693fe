"""A run after its measuring: the numbers are printed and saved before anything judges them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import jsonschema
import pytest
import torch
import torch.distributed as dist
from fake_engine import FakeEngine, effects, no_effect
from PIL import Image

import mlenergy.diffusion.benchmark as benchmark
from mlenergy.diffusion import run
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results import save
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.results.save import save_result
from mlenergy.diffusion.results.verify import differences
from mlenergy.diffusion.supervision.status import read_ending

SUPPORT = Path(__file__).parent / "support"
SCHEMA = Path(run.__file__).parent / "schema" / "results-v1.json"
CACHED = ("--use_fbcache", "--cache_threshold", "0.1")
NO_SKIP = "cache fbcache skipped no step at threshold 0.1;"


def words_of(base, *options):
    words = ["--engine", "diffusers", "--device", "cpu", "--benchmark_iters", "2"]
    words += ["workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]
    words += ["--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "2"]
    return [*words, "--workload.base_dir", str(base), *options]


class Bench:
    """Runs in this process, with an engine whose look at the effects is the test's."""

    def __init__(self, base, monkeypatch, capfd):
        self.base, self._monkeypatch, self._capfd = base, monkeypatch, capfd

    def run(self, look=effects, *options):
        self._monkeypatch.setattr(run, "load_engine", lambda plan, cluster: FakeEngine(look))
        self._monkeypatch.setattr(sys, "argv", ["benchmark", *words_of(self.base, *options)])
        self._capfd.readouterr()
        try:
            self.code = benchmark.main()
        finally:
            if dist.is_initialized():  # a run that failed leaves that to the end of its process
                dist.destroy_process_group()
        self.out, self.err = self._capfd.readouterr()
        return self.code

    @property
    def folder(self):
        (folder,) = self.base.iterdir()
        return folder

    @property
    def paths(self):
        return RunPaths(self.folder, "tiny-flux")

    @property
    def result(self):
        return json.loads(self.paths.results.read_text())

    @property
    def status(self):
        return json.loads(self.paths.status.read_text())

    @property
    def line(self):
        (line,) = [line for line in self.err.splitlines() if line.startswith("mlenergy: error:")]
        return line


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    return Bench(tmp_path / "base", monkeypatch, capfd)


def raises(error):
    def look():
        raise error

    return look


def test_a_whole_run_is_complete_and_says_what_its_cache_did(bench):
    assert bench.run(effects, *CACHED) == 0, bench.err
    assert is_complete(bench.paths)
    result = bench.result
    jsonschema.validate(result, json.loads(SCHEMA.read_text()), jsonschema.Draft202012Validator)
    assert (result["effects_pending"], result["effects_reason"]) == (False, None)
    assert result["effects_failed"] == []
    assert result["effects"] == [effects()]
    assert bench.out.index("images/s") < bench.out.index("cache          fbcache computed 50%")
    assert (bench.status["state"], bench.status["exit_code"]) == ("complete", 0)


@pytest.mark.parametrize("options", [CACHED, ()])
def test_while_the_effects_are_looked_at_the_numbers_are_there_already(bench, options):
    """A kill at this moment would leave the numbers."""
    found = {}

    def look():
        out, _ = bench._capfd.readouterr()
        found.update(out=out, result=bench.result, complete=is_complete(bench.paths))
        found.update(images=sorted(bench.paths.images.iterdir()), stage=bench.status["stage"])
        return effects()

    assert bench.run(look, *options) == 0, bench.err
    assert "images/s" in found["out"] and "results.json" in found["out"]
    assert found["result"]["completed"] == len(found["images"]) == 2
    assert found["result"]["effects"] is None and found["result"]["effects_reason"]
    jsonschema.validate(found["result"], json.loads(SCHEMA.read_text()), jsonschema.Draft202012Validator)
    # Without an optimization that may turn out to do nothing there is nothing to wait for.
    assert found["complete"] == (options == ())
    assert found["stage"] == "effects"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a kernel failed"), torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no room")],
)
def test_a_look_that_crashes_costs_no_number(bench, error):
    assert bench.run(raises(error), *CACHED) == 1
    assert "images/s" in bench.out
    assert str(error) in bench.line and "the measured numbers are in" in bench.line
    result = bench.result
    assert result["completed"] == 2 and result["generation_time"] > 0
    assert result["effects"] is None and str(error) in result["effects_reason"]
    assert not is_complete(bench.paths)
    assert (bench.status["state"], bench.status["exit_code"]) == ("failed", 1)
    assert str(error) in bench.status["message"]
    # Not known is not the same as allowed: measured again.
    assert bench.run(effects, *CACHED, "--allow_no_effect") == 0, bench.err
    assert "measured 2/2" in bench.err and is_complete(bench.paths)


def test_a_look_that_crashes_with_nothing_to_judge_leaves_a_complete_result(bench):
    assert bench.run(raises(RuntimeError("a kernel failed"))) == 1
    assert "a kernel failed" in bench.result["effects_reason"]
    assert is_complete(bench.paths)


def test_a_result_without_effect_is_kept_but_does_not_count(bench):
    assert bench.run(no_effect, *CACHED) == 2
    assert NO_SKIP in bench.line and "(--allow_no_effect keeps such a result)" in bench.line
    assert "images/s" in bench.out
    (line,) = bench.result["effects_failed"]
    assert NO_SKIP in line and bench.result["effects"] == [no_effect()]
    assert (bench.status["state"], bench.status["exit_code"]) == ("effects_failed", 2)
    assert not is_complete(bench.paths)
    first = bench.result["date"], bench.result["generation_time"]
    assert bench.run(no_effect, *CACHED) == 2
    assert "measured 2/2" in bench.err, "a rerun measures again"
    assert (bench.result["date"], bench.result["generation_time"]) != first


def test_a_kept_result_is_completed_by_a_rerun_that_allows_it(bench):
    bench.run(no_effect, *CACHED)
    before = bench.result
    assert bench.run(no_effect, *CACHED, "--allow_no_effect") == 0, bench.err
    assert "is complete; --overwrite_results measures again" in bench.out
    assert "measured" not in bench.err
    assert is_complete(bench.paths)
    assert bench.result["generation_time"] == before["generation_time"]
    assert bench.result["warnings"][-1] == {"code": "no_effect", "message": before["effects_failed"][0]}
    assert (bench.status["state"], bench.status["exit_code"]) == ("complete", 0)


def test_what_is_allowed_is_complete_and_a_warning(bench):
    assert bench.run(no_effect, *CACHED, "--allow_no_effect") == 0, bench.err
    assert is_complete(bench.paths)
    assert bench.result["effects_failed"] == []
    assert [w["code"] for w in bench.result["warnings"]].count("no_effect") == 1
    assert f"warning        {NO_SKIP}" in bench.out
    assert bench.run(no_effect, *CACHED) == 0, "complete for everyone from then on"


def test_a_signal_while_looking_lets_the_run_end_well(bench):
    def look():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)
        return effects()

    assert bench.run(look, *CACHED) == 0, bench.err
    assert is_complete(bench.paths)


def test_ctrl_c_while_looking_keeps_the_numbers(bench):
    assert bench.run(raises(KeyboardInterrupt()), *CACHED) == 130
    assert bench.result["effects_reason"] == "interrupted"
    assert not is_complete(bench.paths)
    assert (bench.status["state"], bench.status["signal"]) == ("interrupted", "SIGINT")


def test_a_disk_that_is_full_after_the_files_is_one_line_and_the_result_stays_unjudged(bench, monkeypatch):
    def full(paths, result):
        raise UserError(f"cannot write {paths.results}: No space left on device; free space")

    monkeypatch.setattr(run, "save_result", full)
    assert bench.run(effects, *CACHED) == 2
    assert "No space left on device" in bench.line
    assert bench.result["effects_pending"] and not is_complete(bench.paths)


def test_a_reference_that_cannot_be_compared_costs_no_number(bench, monkeypatch):
    assert bench.run() == 0
    exact = str(bench.folder)
    monkeypatch.setattr(run, "similarity", lambda *_: (_ for _ in ()).throw(ValueError("torn image")))
    assert bench.run(effects, "--overwrite_results", "--reference", exact) == 0, bench.err
    assert is_complete(bench.paths)
    (warning,) = [w for w in bench.result["warnings"] if w["code"] == "no_similarity"]
    assert "torn image" in warning["message"] and warning["message"] in bench.out


def test_a_reference_is_compared_with_a_finished_run_and_no_number_changes(bench, tmp_path, monkeypatch):
    assert bench.run() == 0
    exact, other = bench.folder, Bench(tmp_path / "other", monkeypatch, bench._capfd)
    assert other.run() == 0
    before = other.result
    image = sorted((exact / "image_outputs").iterdir())[1]
    with Image.open(image) as opened:
        opened.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(image)
    assert other.run(raises(AssertionError()), "--reference", str(exact)) == 0, other.err
    assert "similarity     PSNR " in other.out and "is complete" in other.out
    after = other.result
    found = after.pop("similarity")
    assert (found["reference"], found["identical"], len(found["images"])) == (str(exact), 1, 2)
    assert after.pop("digests") != before.pop("digests")
    assert after == before
    assert differences(other.folder) == []
    # What was changed since is not measured against anything, and a new digest never hides it.
    other.paths.results.write_text(json.dumps({**other.result, "generation_time": 1.0}))
    assert other.run(effects, "--reference", str(exact)) == 2
    assert "results.json was changed after it was written; --overwrite_results" in other.line
    assert other.run() == 0
    assert f"mlenergy doctor {other.folder} says more" in other.out
    assert other.result["similarity"] == found and differences(other.folder)


def test_a_reference_to_a_run_without_images_is_one_line(bench):
    assert bench.run(effects, "--no_save_images") == 0
    assert bench.run(effects, "--no_save_images", "--reference", str(bench.folder)) == 2
    assert "own folder" in bench.line or "leave --no_save_images out" in bench.line


@pytest.mark.parametrize("torn", [True, False], ids=["torn", "image missing"])
def test_a_result_that_is_not_whole_is_kept_and_said_to_be(bench, torn):
    assert bench.run() == 0
    folder = bench.folder
    file = folder / "results.json" if torn else sorted((folder / "image_outputs").iterdir())[0]
    file.write_text("{") if torn else file.unlink()
    assert bench.run() == 0
    aside = folder.with_name(f"{folder.name}.broken-1")
    (line,) = [line for line in bench.err.splitlines() if "measured anew" in line]
    assert str(aside) in line and ("is cut off" if torn else f"{file.name} is missing") in line
    assert (aside / "results_broken.json").exists() and is_complete(RunPaths(folder, ""))


def test_what_an_interrupted_run_measured_is_kept_and_said_to_be(bench):
    assert bench.run() == 0
    numbers = bench.paths.results.read_text()
    bench.paths.results.rename(bench.paths.interrupted)
    assert bench.run() == 0
    kept = bench.folder / "results_interrupted-1.json"
    assert f"what an interrupted run measured is kept in {kept}; this one starts anew" in bench.err
    assert kept.read_text() == numbers and not bench.paths.interrupted.exists()


def test_a_signal_while_saving_leaves_all_files_and_no_judgement(bench, monkeypatch):
    def slow(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        return save_outputs(*arguments, **options)

    save_outputs = save.save_outputs
    monkeypatch.setattr(save, "save_outputs", slow)
    assert bench.run(raises(AssertionError()), *CACHED) == 130
    assert "interrupted by SIGINT: all was measured and is in " in bench.line
    assert (bench.result["completed"], bench.result["effects_pending"]) == (2, True)
    assert not bench.paths.interrupted.exists()
    assert (bench.status["state"], bench.status["signal"]) == ("interrupted", "SIGINT")


def test_a_failure_before_the_work_is_in_the_status(bench, monkeypatch):
    def start(rank, device_type):
        raise UserError("too few GPUs; use fewer processes")

    monkeypatch.setattr(Cluster, "start", start)
    begin = time.time()
    assert bench.run() == 2
    ending = read_ending(bench.paths.status, begin)
    assert (ending.state, ending.message) == ("failed", "too few GPUs; use fewer processes")
    assert ending.exit_code == 2
    assert read_ending(bench.paths.status, time.time() + 1) is None, "an earlier run's end is not its own"


def test_an_unexpected_error_is_in_the_status_as_on_the_terminal(bench, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda *_, **__: 1 / 0)
    assert bench.run() == 1
    message = "unexpected ZeroDivisionError on rank 0: division by zero"
    assert bench.status["message"] == message and message in bench.line
    assert bench.status["exit_code"] == 1


def test_a_reader_that_closes_the_pipe_costs_the_summary_only(tmp_path):
    code = "import sys\nsys.path.insert(0, sys.argv.pop(1))\nfrom fake_engine import FakeEngine\n"
    code += "import mlenergy.diffusion.benchmark as benchmark\nfrom mlenergy.diffusion import run\n"
    code += "run.load_engine = lambda *_: FakeEngine()\n"
    code += "sys.exit(benchmark.main())"
    command = [sys.executable, "-c", code, str(SUPPORT), *words_of(tmp_path / "base")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 0, err
    assert "BrokenPipe" not in err
    (folder,) = (tmp_path / "base").iterdir()
    assert is_complete(RunPaths(folder, ""))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_look_that_crashes_on_one_of_two_ranks_ends_both(tmp_path, rank):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = [*CACHED, "--data_parallel_degree", "2", "--workload.batch_size", "2"]
    command = [*torchrun, str(SUPPORT / "fake_engine.py"), *words_of(tmp_path / "base", *options)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "EFFECTS_FAIL_ON": str(rank)}
    done = forked.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mlenergy: error:")]
    assert f"RuntimeError on rank {rank}: no room for the extra generation" in line
    (folder,) = (tmp_path / "base").iterdir()
    result, status = (json.loads((folder / name).read_text()) for name in ("results.json", "status.json"))
    assert result["completed"] == 4 and "no room" in result["effects_reason"]
    assert not is_complete(RunPaths(folder, ""))
    assert (status["state"], status["rank"], status["exit_code"]) == ("failed", rank, 1)


def test_results_of_the_first_minor_version_are_read(bench):
    assert bench.run() == 0
    later = ("schema_minor_version", "effects_reason", "effects_pending", "effects_failed")
    save_result(bench.paths, {key: value for key, value in bench.result.items() if key not in later})
    assert is_complete(bench.paths)
