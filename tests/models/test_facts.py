"""Facts of a model come from its own configuration files, also where they differ from its family's."""

from __future__ import annotations

import pytest
from own_models import TWO_BLOCKS, write_configurations

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.shape import denoiser_text_tokens, shape_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import (
    architecture,
    architecture_from,
    architecture_ids,
    tiny_ids,
)
from mlenergy.diffusion.models.facts import attention_heads, clip_tokens, latent_factor, patch_size
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.plan_view import plan_as_dict

SD3, HUNYUAN = "tiny/sd3", "tiny/hunyuandit"


@pytest.fixture
def own(tmp_path):
    """The id of a folder with the configurations of a known model, less what the changes say."""

    def write(model_id, **changes):
        return str(write_configurations(tmp_path / "own", model_id, changes))

    return write


def plan_of(model_id, *options, world_size=1, **workload):
    words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
    args = parse_args([*options, "workload:t2i", "--workload.model_id", model_id, *words], "test")
    return make_plan(args, resolve_model(model_id), world_size, "cpu", "some CPU")


@pytest.mark.parametrize("model_id", [*architecture_ids(), *tiny_ids()])
def test_what_is_listed_is_what_the_configuration_says(model_id):
    spec, known = BY_ID[model_id], architecture(model_id)
    assert spec.latent_factor == latent_factor(known.components["vae"].config)
    assert spec.patch_size == patch_size(spec.family, known.denoiser.config)
    assert spec.heads == attention_heads(known.denoiser.config)
    if spec.family.clip_in_sequence:
        assert spec.clip_tokens == clip_tokens(known.text_encoders[0].config)


@pytest.mark.parametrize(
    ("model_id", "latent", "tokens", "multiple"),
    [
        ("tiny/flux", 32, 16, 4),
        (SD3, 32, 16, 4),
        ("tiny/pixart-sigma", 32, 16, 8),  # its pipeline refuses what 8 does not divide
        ("tiny/sd1.5", 32, 32, 8),
    ],
)
def test_a_vae_of_two_blocks_halves_the_image(own, model_id, latent, tokens, multiple):
    folder = own(model_id, vae=TWO_BLOCKS)
    plan = plan_of(folder, height=64, width=64)
    assert plan.spec.latent_factor == 2 and plan.spec.size_multiple_px == multiple
    shapes = plan_as_dict(plan)["shapes"]
    assert shapes["latent"] == [latent, latent] and shapes["tokens"] == [tokens, tokens]
    assert (plan.tokens, plan.token_rows) == (tokens * tokens, tokens)
    shape = shape_of(plan, architecture_from(read_model(folder)))
    assert (shape.cells, shape.image_tokens) == (latent * latent, tokens * tokens)


def test_sizes_are_checked_against_the_models_own_multiple(own):
    folder = own(SD3, vae=TWO_BLOCKS)
    assert plan_of(folder, height=68, width=64).tokens == 17 * 16
    with pytest.raises(UserError, match="height 66 is not a multiple of 4, which sd3 needs; use 64 or 68"):
        plan_of(folder, height=66)
    # 34 rows of tokens on four ranks; with the family's factor of 8 there would be no whole rows at all.
    assert plan_of(folder, "--ulysses_degree", "4", world_size=4, height=64).token_rows == 16
    with pytest.raises(UserError, match=r"makes 17 rows of tokens.*use a height of 64 or 80"):
        plan_of(folder, "--ulysses_degree", "4", world_size=4, height=68)


def test_the_default_size_follows_the_vae_as_the_pipelines_do(own):
    cells = architecture(SD3).denoiser.config["sample_size"]
    assert resolve_model(own(SD3, vae=TWO_BLOCKS)).default_height_px == 2 * cells


def test_flux_takes_its_pipelines_cells_and_a_denoiser_may_name_both_sides(own, tmp_path):
    assert resolve_model(own("tiny/flux", vae=TWO_BLOCKS)).default_height_px == 256  # 128 cells
    wide = write_configurations(tmp_path / "wide", "tiny/sd1.5", {"unet": {"sample_size": [32, 48]}})
    spec = resolve_model(str(wide))
    assert (spec.default_height_px, spec.default_width_px) == (256, 384)


def test_the_patch_is_the_denoisers_own_and_flux_packs_two_by_two(own, tmp_path):
    plan = plan_of(own(SD3, transformer={"patch_size": 4}), height=128, width=128)
    assert plan.spec.patch_size == 4 and plan.spec.size_multiple_px == 32 and plan.tokens == 16
    shape = shape_of(plan, architecture_from(read_model(plan.weights_from)))
    assert (shape.image_tokens, shape.cells) == (16, 256)
    flux = write_configurations(tmp_path / "flux", "tiny/flux", {"transformer": {"patch_size": 1}})
    assert resolve_model(str(flux)).patch_size == 2


def test_clips_length_is_its_own(own):
    longer = {"max_position_embeddings": 120}
    plan = plan_of(own(SD3, text_encoder=longer, text_encoder_2=longer), max_sequence_length=64)
    assert plan.text_tokens_in_sequence == 120 + 64
    model = architecture_from(read_model(plan.weights_from))
    assert denoiser_text_tokens(model, shape_of(plan, model).workload.t5_tokens) == 120 + 64


def test_sd3_without_its_t5_has_zeros_of_the_same_length(own):
    plan = plan_of(own(SD3, text_encoder_3=None), max_sequence_length=64)
    assert shape_of(plan, architecture_from(read_model(plan.weights_from))).text_tokens == 77 + 64


def test_a_unet_with_the_guidance_as_an_input_runs_no_guidance_batch(own):
    plan = plan_of(own("tiny/sd1.5", unet={"time_cond_proj_dim": 32}), guidance_scale=7.5)
    assert plan.spec.guidance == "embedded" and not plan.runs_guidance_batch
    with pytest.raises(UserError, match="runs no guidance batch"):
        plan_of(plan.weights_from, "--engine", "diffusers", "--use_cfg_parallel", world_size=2)


def test_hunyuandit_runs_the_factor_that_its_positions_are_made_for(own):
    with pytest.raises(UserError, match=r"one latent cell of 2 pixels a side.*runs 8 alone"):
        plan_of(own(HUNYUAN, vae=TWO_BLOCKS))


def test_a_vae_without_blocks_says_what_is_missing(own):
    folder = own(SD3, vae={"block_out_channels": None})
    with pytest.raises(UserError, match="has no list block_out_channels"):
        resolve_model(folder)


def test_every_family_with_a_fixed_factor_has_it_listed():
    fixed = {f.name: f.only_latent_factor for f in FAMILIES.values() if f.only_latent_factor is not None}
    assert fixed == {"hunyuandit": 8}
