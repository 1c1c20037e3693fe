"""--workload.weights random from the command line to the results."""

import json
import os
import shutil
import sys

import forked
import pytest

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights.tiny import tiny_folder

FLUX = "black-forest-labs/FLUX.1-dev"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A pipeline's folder without its weights."""
    folder = tmp_path_factory.mktemp("bare") / "flux"
    shutil.copytree(tiny_folder("tiny/flux"), folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    assert not list(folder.rglob("*.safetensors"))
    return folder


def planned(model, *options):
    words = ["workload:t2i", "--workload.model_id", str(model), "--workload.weights", "random", *options]
    return plan_from(["--device", "cpu", *words], 1, "test")[1]


@pytest.mark.full
def test_two_ranks_run_a_folder_without_weights(bare, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = ["-m", "mlenergy.diffusion.benchmark", "--ulysses_degree", "2", "--benchmark_iters", "2"]
    words += ["--no_count_flops"]
    words += ["workload:t2i", "--workload.base_dir", str(tmp_path), "--workload.dataset", "bundled"]
    words += ["--workload.model_id", str(bare), "--workload.weights", "random", "--workload.dtype", "float32"]
    words += ["--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "2"]
    done = forked.run(
        [*launcher, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "results.json").read_text())
    assert result["weights"] == "random" and result["configuration"]["weights"] == "random"
    assert "random weights" in done.stdout
    built = [rank["facts"]["random_weights"] for rank in result["load"]]
    assert len(built) == 2 and built[0]["fingerprint"] == built[1]["fingerprint"]
    assert built[0]["build_s"] > 0 and built[0]["parameters"]["transformer"] > 0
    assert not [w for w in result["warnings"] if w["code"] == "images_not_finite"]


def test_a_listed_model_needs_neither_folder_nor_hub():
    plan = planned(FLUX)
    assert plan.weights == "random" and plan.weights_from == FLUX and plan.has_random_weights
    assert (plan.height_px, plan.steps) == (BY_ID[FLUX].default_height_px, BY_ID[FLUX].default_steps)


@pytest.mark.parametrize(
    ("model", "options", "line"),
    [
        ("tiny/flux", (), "always has random weights"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", (), "no architecture of stable-diffusion-v1-5"),
        (FLUX, ("--workload.lora", "some/lora"), "leave --workload.lora out"),
        (FLUX, ("--workload.variant", "fp16"), "leave --workload.variant out"),
        (FLUX, ("--workload.revision", "main"), "leave --workload.revision out"),
    ],
)
def test_what_random_weights_cannot_be_is_refused(model, options, line):
    with pytest.raises(UserError, match=line):
        planned(model, *options)


def test_a_folder_without_tokenizers_is_refused_by_name(bare, tmp_path):
    from mlenergy.diffusion.weights.random.tokenizers import saved_tokenizers

    folder = tmp_path / "no-tokenizer"
    shutil.copytree(bare, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UserError, match="a tokenizer cannot be read"):
        saved_tokenizers(read_model(str(folder)))
