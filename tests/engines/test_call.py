"""The arguments of a call, family by family, against images of pipelines that are called by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity_reference import BY_HAND, Wanted, reference_images
from result_samples import cpu_plan

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.call import (
    call_arguments,
    denoiser_calls,
    group_rows,
    noise_generators,
    set_guiders,
)
from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine
from mlenergy.diffusion.engines.diffusers.mesh import MeshPosition
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.models.resolve import resolve_model

CPU = torch.device("cpu")
PROMPTS, SEEDS = ("a fox in the snow", "two blue boats on a lake at dusk, seen from a hill above"), (7, 9)
# Otherwise than every default.
CHANGES = {
    "guidance": {"guidance_scale": 2.5},
    "negative": {"negative_prompt": "blurred, grey"},
    "text": {"max_sequence_length": 16},
    "frames": {"num_frames": 17},
}
# Sizes that a family makes, where it is not this one: height and width in pixels, not a square.
SIZES = {"tiny/hidream": (208, 312), "tiny/hunyuanimage": (64, 128)}
SIZE = (64, 96)
SLOW = ("tiny/hidream", "tiny/hunyuanvideo1.5")


def plan_of(model, **changes):
    height, width = SIZES.get(model, SIZE)
    kind = TextToVideo if resolve_model(model).family.makes_video else TextToImage
    work = kind(
        *(model,),
        **{"dataset": "bundled", "batch_size": 2, "height": height, "width": width, "inference_steps": 2},
        **{"dtype": "float32", **changes},
    )
    slicing = resolve_model(model).family.decodes_one
    args = BenchmarkArgs(work, engine="diffusers", device="cpu", vae_slicing=slicing)
    return make_plan(args, resolve_model(model), 1, "cpu", "cpu")


def is_known(model, change):
    if change == "negative":
        return BY_HAND[model].takes_negative
    if change == "frames":
        return BY_HAND[model].frames is not None and not resolve_model(model).family.fixed_frames
    if change == "text":
        return BY_HAND[model].takes_text_length and not resolve_model(model).text_length_is_fixed
    return True


@pytest.fixture(scope="module")
def engines():
    """Loaded engines by model, each once."""
    loaded = {}

    def engine(model):
        if model not in loaded:
            loaded.clear()
            loaded[model] = DiffusersEngine.load(plan_of(model), Cluster(Rank(), CPU, None))
        return loaded[model]

    return engine


def check(engine, model, options):
    """Bit for bit the same as a call by hand."""
    engine.plan = plan_of(model, **options)
    set_guiders(engine.plan, engine.pipeline)  # as loading with that plan does
    found = engine.generate(Batch(PROMPTS, SEEDS)).images
    size = SIZES.get(model, SIZE)
    wanted = Wanted(
        *(model, PROMPTS, SEEDS, *size, 2),
        *(options.get("guidance_scale"), options.get("negative_prompt"), options.get("max_sequence_length")),
        frames=options.get("num_frames"),
    )
    frames = options.get("num_frames", BY_HAND[model].frames)
    assert found.shape == (2, *(() if frames is None else (frames,)), 3, *size)
    assert torch.equal(found, reference_images(wanted)), "an argument is dropped, or another one is given"


# SD3.5 is called as SD3, PixArt-Alpha as Sigma.
# HiDream's is the largest image of all: 20 s; HunyuanVideo 1.5 has two thousand tokens of text.
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[pytest.mark.full] if name in SLOW else [])
        for name in BY_HAND
        if name not in ("tiny/sd3.5", "tiny/pixart-alpha")
    ],
)
def test_all_options_reach_the_pipeline_as_if_it_were_called_by_hand(engines, model):
    options = [values for change, values in CHANGES.items() if is_known(model, change)]
    check(engines(model), model, {name: value for values in options for name, value in values.items()})


@pytest.mark.full
@pytest.mark.parametrize("model", BY_HAND)
def test_each_option_by_itself_and_every_default_do(engines, model):
    check(engines(model), model, {})
    for change, options in CHANGES.items():
        if is_known(model, change):
            check(engines(model), model, options)


@given(st.integers(1, 6), st.integers(1, 5))
def test_data_parallel_groups_share_the_rows_without_gap_or_overlap(groups, rows_each):
    batch = groups * rows_each
    parts = [group_rows(rank, groups, batch) for rank in range(groups)]
    assert [row for part in parts for row in range(batch)[part]] == list(range(batch))
    assert {part.stop - part.start for part in parts} == {rows_each}


def test_each_image_has_the_noise_of_its_own_seed_on_every_device():
    first, second = noise_generators((7, 8))
    assert (first.device.type, first.initial_seed(), second.initial_seed()) == ("cpu", 7, 8)


def pipefusion(steps, **changes):
    degrees = {"pipefusion": 2, "pipefusion_warmup_steps": 1, **changes.pop("degrees", {})}
    return denoiser_calls(cpu_plan(steps=steps, parallel=Parallelism(**degrees), **changes))


def test_pipefusions_calls_are_one_a_synchronous_step_and_one_a_patch_afterwards():
    assert pipefusion(4) == [1, 2, 2, 2]
    assert pipefusion(4, degrees={"pipefusion_warmup_steps": 3}) == [1, 1, 1, 2]
    assert pipefusion(3, degrees={"num_pipeline_patch": 4}) == [1, 4, 4]
    assert pipefusion(3, degrees={"pipefusion_warmup_steps": 0}) == [2, 2, 2]
    assert pipefusion(2, degrees={"pipefusion_warmup_steps": 2}) is None, "all steps are alike"
    assert pipefusion(2, degrees={"pipefusion_warmup_steps": 5}) is None
    assert pipefusion(4, engine="diffusers") is None
    assert pipefusion(4, degrees={"pipefusion": 1, "ulysses": 2}) is None


class Pipeline:
    """Keeps what it is called with."""

    def __call__(self, **arguments):
        self.arguments = arguments
        size = (arguments["height"], arguments["width"])
        return type("Output", (), {"images": torch.zeros(len(arguments["prompt"]), 3, *size)})


@pytest.mark.parametrize(("data_rank", "is_output_rank"), [(0, True), (0, False), (1, True), (1, False)])
def test_only_the_rank_whose_images_are_kept_decodes_its_groups_own_rows(data_rank, is_output_rank):
    """The other ranks' images would be thrown away: decoding them would cost energy for nothing."""
    plan = replace(
        plan_of("tiny/sd3", negative_prompt="grey"), batch_size=4, parallel=Parallelism(data=2, cfg=2)
    )
    pipeline, position = Pipeline(), MeshPosition(None, data_rank, is_output_rank)
    engine = DiffusersEngine(plan, pipeline, position, AppliedOptimizations(plan, CPU), None)
    made = engine.generate(Batch(("a", "b", "c", "d"), (1, 2, 3, 4)))
    given_to = pipeline.arguments
    assert given_to["prompt"] == [["a", "b"], ["c", "d"]][data_rank]
    assert [one.initial_seed() for one in given_to["generator"]] == [[1, 2], [3, 4]][data_rank]
    assert given_to["negative_prompt"] == ["grey"] * 2
    assert given_to["output_type"] == ("pt" if is_output_rank else "latent")
    assert given_to["num_inference_steps"] == 2
    engine._run(Batch(("a", "b", "c", "d"), (1, 2, 3, 4)), 1)  # as the look at the effects does
    assert pipeline.arguments["num_inference_steps"] == 1
    if is_output_rank:
        assert (made.first_row, len(made.images)) == (2 * data_rank, 2)
    else:
        assert made.images is None


def test_captions_are_taken_as_they_are():
    """Pipelines that rewrite them do so only where two optional packages happen to be installed."""
    assert call_arguments(plan_of("tiny/pixart-sigma"))["clean_caption"] is False
    assert "clean_caption" not in call_arguments(plan_of("tiny/sd3"))


@pytest.mark.parametrize("binning", [False, True])
def test_resolution_binning_is_off_unless_it_is_asked_for(binning):
    plan = replace(plan_of("tiny/pixart-sigma"), use_resolution_binning=binning)
    assert call_arguments(plan)["use_resolution_binning"] is binning
    assert "use_resolution_binning" not in call_arguments(plan_of("tiny/flux"))
