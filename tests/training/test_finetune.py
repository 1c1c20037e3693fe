"""`mlenergy finetune` as a user calls it, on a tiny PixArt."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import driver_double
import forked
import pytest

from mlenergy.diffusion import cli

FINETUNE = [sys.executable, "-m", "mlenergy.diffusion", "finetune"]
WORKER = [sys.executable, str(Path(__file__).parents[1] / "support" / "finetune_worker.py")]
STEPS = 16
WATTS = 200


def options(pictures, out, *more):
    words = [
        "--model_id",
        "tiny/pixart-alpha",
        "--dataset",
        str(pictures),
        "--out",
        str(out),
        "--height",
        "64",
    ]
    words += ["--width", "64", "--steps", str(STEPS), "--batch_size", "4", "--learning_rate", "1e-2"]
    return [*words, "--checkpoint_every", "8", "--log_every", "4", "--device", "cpu", *map(str, more)]


def call(command, *words, code=0, **more):
    done = forked.run([*command, *words], capture_output=True, text=True, check=False, timeout=300, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def errors(done):
    """Lines beside those of progress."""
    return [line for line in done.stderr.splitlines() if line.startswith("mlenergy: ")]


def record_of(out, name="training.json"):
    return json.loads((out / name).read_text())


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A whole training, with the energy of a GPU of the driver double."""
    out = tmp_path_factory.mktemp("trained") / "lora"
    double = driver_double.build(tmp_path_factory.mktemp("double"))
    environ = driver_double.environment(double, gpus=1, power=f"const:{WATTS}")
    energy = ("--energy_gpus", "all", "--idle_s", "0", "--sample_period_s", "0.05", "--require_energy")
    done = call(FINETUNE, *options(pictures, out, *energy), env=environ)
    return out, done


def test_the_loss_falls_and_everything_is_on_record(trained):
    out, done = trained
    record = record_of(out)
    losses = [row["loss"] for row in record["loss_curve"]]
    assert len(losses) == STEPS and [row["step"] for row in record["loss_curve"]] == list(range(1, STEPS + 1))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert record["state"] == "complete" and record["images"] == 4 * STEPS
    assert record["images_per_second"] == pytest.approx(4 * STEPS / record["duration_s"])
    assert record["steps_per_second"] == pytest.approx(STEPS / record["duration_s"])
    assert record["lora"]["sha256"] == digest(out / "adapter_model.safetensors")
    assert record["peak_memory_bytes"] is None and "allocator" in record["peak_memory_reason"]
    assert record["environment"]["versions"]["peft"]
    assert record["dataset"]["images"] == 4
    assert "zeus" in (out / "log.txt").read_text() and not errors(done)
    assert f"loss           {sum(losses[:1]):.4f} over the first tenth" in done.stdout


def test_joules_are_those_of_the_windows_of_all_segments(trained):
    out, _ = trained
    record = record_of(out)
    assert [(one["first_step"], one["last_step"]) for one in record["segments"]] == [(1, 8), (9, 16)]
    windows = [window for one in record["segments"] for window in one["windows"]]
    assert [window["images"] for window in windows] == [16] * 4
    assert record["duration_s"] == pytest.approx(sum(window["duration_s"] for window in windows))
    # Begin and end are read a moment outside of the clock.
    assert record["energy_j"] == pytest.approx(WATTS * record["duration_s"], rel=0.1)
    assert record["energy_source"] == "nvml_counter" and record["energy_reason"] is None
    assert record["energy_per_image_j"] == pytest.approx(record["energy_j"] / 64)


@pytest.mark.full  # test_loss.py holds the same of a trainer by itself
@pytest.mark.parametrize(("signal", "code", "windows"), [("SIGINT", 130, 3), ("SIGKILL", -9, 3)])
def test_a_training_that_goes_on_makes_the_same_curve_and_weights(
    trained, pictures, tmp_path, signal, code, windows
):
    whole, out = trained[0], tmp_path / "lora"
    words = options(pictures, out)
    done = call(WORKER, signal, str(windows), *words, code=code)
    if signal == "SIGINT":
        assert errors(done) == [
            "mlenergy: error: interrupted by SIGINT: 12 of 16 steps are saved; the same command goes on"
        ]
        before = record_of(out, "training_interrupted.json")
        assert len(before["loss_curve"]) == 12 and before["duration_s"] > 0
        assert before["energy_j"] is None and "no GPU takes part" in before["energy_reason"]
    assert not (out / "training.json").exists()
    done = call(FINETUNE, *words)
    assert f"going on after step {12 if signal == 'SIGINT' else 8}" in done.stderr
    assert record_of(out)["loss_curve"] == record_of(whole)["loss_curve"]
    assert digest(out / "adapter_model.safetensors") == digest(whole / "adapter_model.safetensors")
    assert sum(one["last_step"] - one["first_step"] + 1 for one in record_of(out)["segments"]) == STEPS
    assert not (out / "training_interrupted.json").exists()
    assert sorted(one.name for one in (out / "checkpoints").iterdir()) == [
        "step-00000012" if signal == "SIGINT" else "step-00000008",
        "step-00000016",
    ]
    assert "is complete already" in call(FINETUNE, *words).stdout


@pytest.fixture
def refused(pictures, tmp_path, monkeypatch, capsys):
    """The error's line of a call that ends before torch is imported."""

    def call(*more, folder=pictures, out=tmp_path / "out"):
        words = options(folder, out, *more)
        monkeypatch.setattr(sys, "argv", ["mlenergy", "finetune", *words])
        assert cli.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def test_mistakes_are_one_line(refused, tmp_path, trained):
    assert "there is no folder" in refused(folder=tmp_path / "nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "has no metadata.jsonl and so no captions" in refused(folder=bare)
    (bare / "metadata.jsonl").write_text('{"file_name": "0.png", "text": ""}')
    assert "1 of the 1 images" in (line := refused(folder=bare)) and "have no text: 0.png" in line
    (bare / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "one"}')
    assert "are missing: 0.png" in refused(folder=bare)
    (bare / "dataset.json").write_text('{"state": "incomplete"}')
    assert "its preparation was interrupted" in refused(folder=bare)
    assert "for which there is no training; it trains PixArt" in refused("--model_id", "tiny/sdxl")
    assert "multiple" in refused("--height", "60")
    assert "holds another training (different seed; seed was 42)" in refused("--seed", 1, out=trained[0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    assert "holds other files (thesis.tex)" in refused(out=tmp_path / "full")


@pytest.mark.full
def test_a_loss_that_is_not_finite_ends_it_and_keeps_the_curve(pictures, tmp_path):
    done = call(FINETUNE, *options(pictures, tmp_path / "lora", "--learning_rate", "1e9"), code=2)
    (line,) = errors(done)
    record = record_of(tmp_path / "lora", "training_failed.json")
    assert record["failure"] in line and "lower --learning_rate" in line
    assert 1 <= len(record["loss_curve"]) < STEPS and record["duration_s"] > 0
    assert not (tmp_path / "lora" / "adapter_model.safetensors").exists()


@pytest.mark.full
def test_two_processes_train_what_one_does(pictures, trained, tmp_path):
    words = options(pictures, tmp_path / "lora", "--batch_size", 1, "--gradient_accumulation", 2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    call(torchrun, "-m", "mlenergy.diffusion", "finetune", *words)
    record, alone = record_of(tmp_path / "lora"), record_of(trained[0])
    assert record["global_batch"] == alone["global_batch"] == 4 and record["images"] == alone["images"]
    pairs = zip(record["loss_curve"], alone["loss_curve"], strict=True)
    assert all(one["loss"] == pytest.approx(other["loss"], rel=1e-3) for one, other in pairs)
    (line,) = errors(call(torchrun, "-m", "mlenergy.diffusion", "finetune", *words, "--seed", "1", code=1))
    assert "holds another training" in line


@pytest.mark.full
def test_the_launcher_merges_the_lora_and_the_image_changes(trained, tmp_path):
    words = ["--device", "cpu", "--warmup_iters", "0", "--benchmark_iters", "1", "workload:t2i"]
    words += ["--workload.model_id", "tiny/pixart-alpha", "--workload.height", "64", "--workload.width", "64"]
    words += ["--workload.inference_steps", "2", "--workload.base_dir"]
    images = []
    for name, more in (("plain", []), ("tuned", ["--workload.lora", str(trained[0])])):
        run = [sys.executable, "-m", "mlenergy.diffusion.benchmark"]
        call(run, *words, str(tmp_path / name), *more)
        (image,) = (tmp_path / name).glob("*/image_outputs/*.png")
        images.append(image.read_bytes())
    assert images[0] != images[1]
