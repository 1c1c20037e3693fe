"""Sana: the text that is encoded, what is refused and why, the factor of its autoencoder."""

from __future__ import annotations

import sys

import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.cost.shape import workload_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import architecture
from mlenergy.diffusion.models.resolve import resolve_model

SMALL, LARGE = (f"Efficient-Large-Model/SANA1.5_{size}_1024px_diffusers" for size in ("1.6B", "4.8B"))


def plan_of(model_id, *options, world_size=1, **workload):
    words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
    args = parse_args([*options, "workload:t2i", "--workload.model_id", model_id, *words], "test")
    return make_plan(args, resolve_model(model_id), world_size, "cpu", "some CPU")


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_the_encoder_reads_as_many_tokens_as_are_counted(guidance):
    import torch
    from diffusers import SanaPipeline

    from mlenergy.diffusion.weights.tiny import tiny_folder

    pipeline = SanaPipeline.from_pretrained(tiny_folder("tiny/sana"), dtype=torch.float32)
    read = []
    pipeline.text_encoder.register_forward_pre_hook(lambda _, ids: read.append(ids[0].shape[1]))
    pipeline("a fox", height=64, width=64, num_inference_steps=1, guidance_scale=guidance,
        use_resolution_binning=False, clean_caption=False, max_sequence_length=32)  # fmt: skip
    plan = plan_of("tiny/sana", max_sequence_length=32, guidance_scale=guidance)
    assert workload_of(plan, architecture("tiny/sana")).encoded_tokens == tuple(read)


def test_text_flops_are_those_of_both_lengths():
    encoder = costs_of(architecture(SMALL))["text_encoder"]
    both = encoder.flops_at(1, 0, 510) + encoder.flops_at(1, 0, 300)
    assert flops_of(plan_of(SMALL)).text_encode == pytest.approx(both)
    assert flops_of(plan_of(SMALL, guidance_scale=1.0)).text_encode == pytest.approx(
        encoder.flops_at(1, 0, 510)
    )


def test_an_image_is_of_few_tokens():
    plan = plan_of(LARGE)
    assert (plan.tokens, plan.token_rows, plan.spec.size_multiple_px) == (1024, 32, 32)
    with pytest.raises(UserError, match="height 1000 is not a multiple of 32"):
        plan_of(SMALL, height=1000)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--ulysses_degree", "linear attention sums"),
        ("--ring_degree", "linear attention sums"),
        ("--pipefusion_parallel_degree", "rows of neighbouring patches"),
    ],
)
@pytest.mark.parametrize("engine", ["xdit", "diffusers"])
def test_what_splits_a_sequence_is_refused_with_the_reason(option, reason, engine):
    with pytest.raises(
        UserError, match=rf"{option}: the {engine} engine does not offer it for sana .*{reason}"
    ):
        plan_of(SMALL, option, "2", "--engine", engine, world_size=2)


def test_no_kernel_is_chosen_for_linear_attention():
    with pytest.raises(UserError, match="no kernel can be chosen for the attention of sana"):
        plan_of(SMALL, "--attention_backend", "sdpa")


def test_guidance_is_shared_by_either_engine():
    for engine in ("xdit", "diffusers"):
        assert plan_of(LARGE, "--use_cfg_parallel", "--engine", engine, world_size=2).parallel.cfg == 2


@pytest.mark.full
def test_a_run_ends_with_its_effects_known(tmp_path):
    import json

    import forked

    options = ["--workload.model_id", "tiny/sana", "--workload.height", "64", "--workload.width", "64"]
    where = ["--workload.base_dir", str(tmp_path), "--workload.inference_steps", "2"]
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--engine", "diffusers"]
    done = forked.run(
        [*command, "--benchmark_iters", "1", "workload:t2i", *options, *where], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/results.json")
    result = json.loads(path.read_text())
    assert result["effects_reason"] is None and result["executed_failed"] == []
    assert result["stages"]["text_encode_s"]["mean"] > 0
