"""Recorded forwards, with a recorder of the CPU: what is copied, what is read in place, what is replayed."""

from __future__ import annotations

import pytest
import torch

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.cuda_graphs import GraphWork
from mlenergy.diffusion.engines.autoregressive.sampling import SamplingOptions, generate
from mlenergy.diffusion.engines.autoregressive.var_model import build_var
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

CPU = torch.device("cpu")
SCHEDULE = resolve_model("tiny/var").next_scale.schedules[64, 64]


def record(call):
    """As a CUDA graph: no argument is looked at again, and the output stays where it is."""
    output = call()

    def replay():
        output.copy_(call())

    return output, replay


@torch.no_grad()
def image(model, seed, label, images=1):
    batch = Batch(("",) * images, tuple(range(seed, seed + images)), (label,) * images)
    return generate(model, batch, SCHEDULE, SamplingOptions(4.0, 900, 0.95), CPU).clone()


def test_replays_give_the_images_of_plain_calls(plan_of):
    model = build_var(plan_of(), None, CPU)
    plain = [image(model, 1, 5), image(model, 2, 6), image(model, 3, 7)]
    entries = []
    model.transformer.register_forward_pre_hook(lambda *_: entries.append(1))
    work = GraphWork(model.transformer, model.vae.decoder, record)
    replayed = [image(model, 1, 5), image(model, 2, 6), image(model, 3, 7)]
    assert all(torch.equal(one, two) for one, two in zip(plain, replayed, strict=True))
    assert work.record() == {"graphs": 5, "replays": 15}  # four scales and the decoder, three times
    assert len(entries) == 12, "the hooks of the stage times see every call"
    assert (image(model, 1, 5, images=2)[:1] - plain[0]).abs().max() <= 1e-5
    assert work.record()["graphs"] == 10
    work.turn(is_on=False)
    assert torch.equal(image(model, 1, 5), plain[0]) and work.record()["replays"] == 20


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--use_cuda_graphs"], "needs an NVIDIA GPU, and this run is on cpu"),
        (["--use_fbcache"], "--cache_method: the autoregressive engine does not offer it"),
        (["--scheduler", "euler"], "--scheduler: the autoregressive engine does not offer it"),
        (["--quantization", "int8-weight-only"], "--quantization: the autoregressive engine"),
        (["--use_fp8_t5_encoder"], "--use_fp8_t5_encoder: the autoregressive engine"),
        (
            ["--ulysses_degree", "2"],
            r"--ulysses_degree: the autoregressive engine does not offer .*by --data_parallel_degree",
        ),
        (["--engine", "diffusers"], "use --engine autoregressive"),
        (["--workload.inference_steps", "7"], r"has no denoising steps: it predicts 4 scales; leave"),
        (["--workload.height", "128"], r"makes images of 64x64 .* and no others, not of 128x64"),
        (
            ["--workload.negative_prompt", "x"],
            r"class-conditional, no prompt steers it; leave .*negative_prompt",
        ),
        (["--workload.prompt_prefix", "a photo of"], "leave --workload.prompt_prefix out"),
        (["--workload.max_sequence_length", "9"], "leave --workload.max_sequence_length out"),
        (["--workload.lora", "x"], "--workload.lora does nothing for tiny/var"),
        (["--workload.class_ids", "3", "1000"], r"class_ids 1000 is not a class of tiny/var: 0 to 999"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(plan_of, options, line):
    world_size = 2 if "2" in options else 1
    with pytest.raises(UserError, match=line) as refused:
        plan_of(*options, world_size=world_size)
    assert "\n" not in str(refused.value)


def test_options_of_tokens_are_refused_for_models_of_steps(plan_of):
    flux = resolve_model("tiny/flux")
    for option in ("--workload.top_k", "--workload.class_ids"):
        with pytest.raises(UserError, match=f"{option} is for models that predict tokens"):
            plan_of(option, "3", spec=flux)
    with pytest.raises(UserError, match="is for models that predict scales"):
        plan_of("--use_cuda_graphs", spec=flux)
