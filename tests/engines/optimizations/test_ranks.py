"""Optimizations on two ranks: the images are those of one process, on both engines."""

import json
import os
import sys
from pathlib import Path

import forked
import pytest
import torch
from optimization_batches import FOX, WHALE, words_of

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.models.resolve import resolve_model

SUPPORT = Path(__file__).parents[2] / "support"
EIGHT = ["--workload.inference_steps", "8", "--workload.dtype", "float32"]
THREE = ["--workload.inference_steps", "3", "--workload.dtype", "float32"]


def case(model, engine, optimizations, degrees, steps=THREE):
    return {
        "model": model,
        "words": ["--engine", engine, *optimizations.split(), *steps],
        "degrees": degrees.split(),
    }


CASES = {
    "teacache-ulysses": case(
        "tiny/flux", "xdit", "--use_teacache --cache_threshold 0.9", "--ulysses_degree 2", EIGHT
    ),
    "fbcache-ring": case(
        "tiny/flux", "xdit", "--use_fbcache --cache_threshold 0.9", "--ring_degree 2", EIGHT
    ),
    "int8-ulysses-xdit": case(
        "tiny/flux", "xdit", "--quantization int8-weight-only --use_fp8_t5_encoder", "--ulysses_degree 2"
    ),
    "fp8-ulysses-xdit": case("tiny/sd3", "xdit", "--layerwise_fp8", "--ulysses_degree 2"),
    "fp8-ulysses-diffusers": case("tiny/sd3", "diffusers", "--layerwise_fp8", "--ulysses_degree 2"),
    "ddim-ulysses-xdit": case("tiny/hunyuandit", "xdit", "--scheduler ddim", "--ulysses_degree 2"),
    "unipc-ulysses-diffusers": case(
        "tiny/pixart-sigma", "diffusers", "--scheduler unipc", "--ulysses_degree 2"
    ),
    "math-cfg-diffusers": case("tiny/sd3", "diffusers", "--attention_backend math", "--use_cfg_parallel"),
    "compile-ulysses-xdit": case("tiny/flux", "xdit", "--use_torch_compile", "--ulysses_degree 2"),
    "compile-ulysses-diffusers": case("tiny/flux", "diffusers", "--use_torch_compile", "--ulysses_degree 2"),
    "compile-ulysses-routed": case(
        "tiny/sd3",
        "diffusers",
        "--use_torch_compile --workload.max_sequence_length 51",
        "--ulysses_degree 2",
    ),
    "compile-ring-xdit": case("tiny/flux", "xdit", "--use_torch_compile", "--ring_degree 2"),
    "compile-ring-diffusers": case("tiny/flux", "diffusers", "--use_torch_compile", "--ring_degree 2"),
    "compile-cfg-diffusers": case(
        "tiny/pixart-sigma", "diffusers", "--use_torch_compile", "--use_cfg_parallel"
    ),
    "fbcache-data": case(
        "tiny/flux",
        "diffusers",
        "--use_fbcache --cache_threshold 0.9 --workload.batch_size 2",
        "--data_parallel_degree 2",
        EIGHT,
    ),
}


# Code takes ten seconds a case and rank: make test traces xfuser's attention, and the one that is routed.
CASES |= {
    name.replace("compile", "traced"): {**CASES[name], "traced_only": True}
    for name in ("compile-ulysses-xdit", "compile-ulysses-routed")
}
QUICK = [name for name in CASES if "compile" not in name]


@pytest.fixture(scope="module")
def found(request, cluster, tmp_path_factory):
    """Results of the worker's two ranks in every case that the session asks for."""
    folder = tmp_path_factory.mktemp("ranks")
    mine = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.params["rank_case"] for item in mine if hasattr(item, "callspec")}
    if len(asked) < len(mine):  # a test without a case looks at those with a cache, or with weights in 8 bits
        asked |= {name for name in CASES if "cache" in name or "8" in name}
    cases = {name: one for name, one in CASES.items() if name in asked}
    (folder / "cases.json").write_text(json.dumps(cases))
    for name, one in cases.items():
        args = parse_args(words_of(one["model"], [w for w in one["words"] if w != "--use_torch_compile"]))
        plan = make_plan(args, resolve_model(one["model"]), 1, "cpu", "a device")
        engine = load_engine(plan, cluster)
        torch.save(engine.generate(WHALE if plan.batch_size == 2 else FOX).images, folder / f"{name}.pt")
        engine.close()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = forked.run(
        [*command, str(SUPPORT / "optimization_worker.py"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    "rank_case",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.full)
        for name in CASES
        if name != "fbcache-data"
    ],
)
def test_two_ranks_make_the_image_of_one(found, rank_case):
    # 8-bit rounding can tip where the ranks' sums are rounded otherwise.
    limit = 2e-2 if "8" in rank_case else 2e-4
    assert found[rank_case]["worst"] < limit
    for effects in found[rank_case]["effects"]:
        assert effects["attention"]["kernels"]
        if rank_case.startswith(("compile", "traced")):
            assert effects["compile"]["graphs"] >= 1


def test_ranks_that_share_an_image_decide_alike(found):
    for name in ("teacache-ulysses", "fbcache-ring"):
        first, second = (effects["cache"] for effects in found[name]["effects"])
        assert first == second
        assert 0.1 < first["computed_share"] < 0.9


def test_ranks_with_images_of_their_own_cache_by_themselves(found):
    for effects in found["fbcache-data"]["effects"]:
        assert effects["cache"]["denoiser_calls"] == 8 and effects["cache"]["computed_share"] < 0.9


def test_the_weights_that_each_rank_holds_are_small(found):
    for name in ("int8-ulysses-xdit", "fp8-ulysses-xdit", "fp8-ulysses-diffusers"):
        for effects in found[name]["effects"]:
            weights = effects["weights"]["transformer"]
            assert weights["bytes"] < 0.6 * weights["bytes_before"]
