"""A tiny Infinity from prompts to pixels: batches, seeds, guidance, padding, and the published files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import infinity_files
import pytest
import torch

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.cuda_graphs import GraphWork
from mlenergy.diffusion.engines.autoregressive.infinity_model import InfinityModel, build_infinity
from mlenergy.diffusion.engines.autoregressive.sampling import SamplingOptions, generate
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

CPU = torch.device("cpu")
PROMPTS = ("fox", "two blue boats on a lake at dusk, seen from a hill", "a")
SEEDS = (3, 5, 7)


def planned(**work: object) -> Plan:
    arguments = TextToImage(model_id="tiny/infinity", **work)  # type: ignore[arg-type]
    return make_plan(BenchmarkArgs(workload=arguments), resolve_model("tiny/infinity"), 1, "cpu", "cpu")


@pytest.fixture(scope="module")
def model() -> InfinityModel:
    return build_infinity(planned(), None, CPU)


@torch.no_grad()
def images(
    model: InfinityModel,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    plan: Plan | None = None,
    guidance_scale: float | None = 4.0,
    top_k: int = 900,
) -> torch.Tensor:
    plan = plan or planned()
    assert plan.schedule is not None
    options = SamplingOptions(guidance_scale, top_k, 0.97)
    return generate(model, Batch(tuple(prompts), tuple(seeds)), plan.schedule, options, CPU)


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


def test_a_batch_of_uneven_prompts_equals_each_prompt_alone(model: InfinityModel) -> None:
    together = images(model)
    assert together.shape == (3, 3, 256, 256)
    assert together.min() >= 0 and together.max() <= 1 and together.std() > 0.05
    for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        assert difference(images(model, [prompt], [seed])[0], together[row]) < 1e-5
    # Its place in the batch and its neighbours do not matter either.
    turned = images(model, PROMPTS[::-1], SEEDS[::-1])
    assert difference(turned.flip(0), together) < 1e-5


def test_the_seed_and_the_prompt_decide_the_image(model: InfinityModel) -> None:
    first = images(model, PROMPTS[:1], [3])
    assert torch.equal(images(model, PROMPTS[:1], [3]), first)
    assert difference(images(model, PROMPTS[:1], [4]), first) > 0.1
    assert difference(images(model, PROMPTS[1:2], [3]), first) > 0.1
    # Of one value there is nothing to draw: the prompt alone decides.
    greedy = images(model, PROMPTS[:1], [3], top_k=1)
    assert torch.equal(images(model, PROMPTS[:1], [4], top_k=1), greedy)


def test_guidance_moves_away_from_the_learned_text_or_the_negative_prompt(model: InfinityModel) -> None:
    usual = images(model)
    assert difference(images(model, guidance_scale=1.5), usual) > 0.1
    # At 1 the unconditional half has no weight: as without it.
    assert difference(images(model, guidance_scale=1.0), images(model, guidance_scale=None)) < 1e-5
    away = InfinityModel(model.config, model.encode, model.transformer, model.vae, "a grey wall")
    assert difference(images(away), usual) > 0.1
    # Away from the prompt itself: what is left is the prompt without guidance.
    from_itself = InfinityModel(model.config, model.encode, model.transformer, model.vae, PROMPTS[0])
    plain = images(model, PROMPTS[:1], SEEDS[:1], guidance_scale=None)
    assert difference(images(from_itself, PROMPTS[:1], SEEDS[:1]), plain) < 1e-5


def test_padding_does_not_change_an_image_and_what_is_too_long_is_cut(model: InfinityModel) -> None:
    short = build_infinity(planned(max_sequence_length=56), None, CPU)
    assert difference(images(short, PROMPTS[:2], SEEDS[:2]), images(model)[:2]) < 1e-5
    cut = build_infinity(planned(max_sequence_length=4), None, CPU)
    assert difference(images(cut, PROMPTS[:2], SEEDS[:2])[1], images(model)[1]) > 0.1


def test_every_aspect_ratio_has_its_pixels(model: InfinityModel) -> None:
    for height, width in ((320, 256), (144, 432)):
        made = images(model, PROMPTS[:1], [3], planned(height=height, width=width))
        assert made.shape == (1, 3, height, width)


def test_no_parameter_is_left_empty(model: InfinityModel) -> None:
    for name, part in model.components.items():
        for key, parameter in part.named_parameters():
            assert parameter.isfinite().all() and parameter.abs().sum() > 0, f"{name} {key}"
            assert parameter.device == CPU
    factors = [v for k, v in model.transformer.named_parameters() if k.endswith("scale_mul_1H11")]
    assert all(3.5 < float(value.exp().mean()) < 4.5 for value in factors)


@pytest.mark.parametrize("shards", [None, "bin", "safetensors"])
def test_the_published_layout_loads_and_gives_the_same_image(
    model: InfinityModel, tmp_path: Path, shards: str | None
) -> None:
    files = infinity_files.write(tmp_path, model, shards)
    loaded = build_infinity(planned(), files, CPU)
    assert difference(images(loaded), images(model)) == 0
    parameters = [p for part in loaded.components.values() for p in part.parameters()]
    assert not any(p.requires_grad for p in parameters)


def test_missing_and_unknown_keys_are_listed(model: InfinityModel, tmp_path: Path) -> None:
    files = infinity_files.write(tmp_path, model)
    tensors = infinity_files.transformer_tensors(model)
    head = tensors.pop("head.weight")
    torch.save(tensors | {"head.extra": head}, files["transformer"])
    with pytest.raises(UserError, match=r"missing: head\.weight.*not known: head\.extra"):
        build_infinity(planned(), files, CPU)
    torch.save(tensors | {"head.weight": head[:2]}, files["transformer"])
    with pytest.raises(UserError, match=r"head\.weight is \(2, 32\) instead of \(24, 32\)"):
        build_infinity(planned(), files, CPU)
    torch.save(infinity_files.transformer_tensors(model), files["transformer"])
    of_vae = infinity_files.vae_tensors(model)
    torch.save({"vae": of_vae | {"decoder.mid.attn_1.q.conv.weight": head}}, files["vae"])
    with pytest.raises(UserError, match=r"not known: decoder\.mid\.attn_1"):
        build_infinity(planned(), files, CPU)
    del of_vae["decoder.up.0.block.2.conv1.conv.bias"]
    torch.save({"vae": of_vae}, files["vae"])
    with pytest.raises(UserError, match=r"missing: decoder\.up_blocks\.3\.resnets\.2\.conv1\.bias"):
        build_infinity(planned(), files, CPU)


def test_a_shard_that_is_missing_is_named(model: InfinityModel, tmp_path: Path) -> None:
    files = infinity_files.write(tmp_path, model, "safetensors")
    next(files["transformer"].glob("*1-of*")).unlink()
    with pytest.raises(UserError, match=r"lacks model-00001-of-00002\.safetensors"):
        build_infinity(planned(), files, CPU)
    (files["transformer"] / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match="download the whole folder again"):
        build_infinity(planned(), files, CPU)


def test_other_sizes_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        UserError,
        match=r"60 sizes, not of 1000x1010.*nearest is --workload\.height 1024 --workload\.width 1024",
    ):
        planned(height=1000, width=1010)
    with pytest.raises(UserError, match=r"height 768 --workload\.width 1344"):
        planned(height=768, width=1360)


def test_a_text_encoder_that_cannot_be_read_is_named(model: InfinityModel, tmp_path: Path) -> None:
    files = infinity_files.write(tmp_path, model)
    with pytest.raises(UserError, match=r"cannot be read as a T5.*google/flan-t5-xl"):
        build_infinity(planned(), {**files, "text_encoder": tmp_path / "nothing"}, CPU)


def test_the_plan_takes_text_options_and_no_classes() -> None:
    plan = planned(negative_prompt="a wall", max_sequence_length=32, guidance_scale=2.0)
    assert (plan.negative_prompt, plan.max_sequence_length, plan.steps) == ("a wall", 32, 7)
    assert plan.engine == "autoregressive" and not plan.is_class_conditional
    with pytest.raises(UserError, match="steered by prompts"):
        planned(class_ids=(1,))
    with pytest.raises(UserError, match=r"max_sequence_length"):
        planned(max_sequence_length=600)
    assert replace(plan, guidance_scale=1.0).runs_guidance_batch is False


def test_replayed_forwards_give_the_images_of_plain_calls() -> None:
    """As CUDA graphs do: kernels find the cache where it was, and a later prompt is read anew."""

    def record(call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        output = call()
        return output, lambda: cast(None, output.copy_(call()))

    model = build_infinity(planned(), None, CPU)
    plain = [images(model, [prompt], [seed]) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    work = GraphWork(model.transformer, model.vae.get_submodule("decoder"), record)
    for prompt, seed, wanted in zip(PROMPTS, SEEDS, plain, strict=True):
        assert difference(images(model, [prompt], [seed]), wanted) == 0
    assert work.record() == {"graphs": 8, "replays": 24}  # seven scales and the decoder, three times
