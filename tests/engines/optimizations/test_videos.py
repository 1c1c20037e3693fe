"""Decoders of videos in slices and tiles: counted, the pixels of diffusers, named where they are whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from decoded_by_hand import decoded_by_hand
from optimization_batches import FOX, TILED_SIZES, WHALE, words_of

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

STEPS = "2"
# Model -> cells of all tiles over those of a frame: 34 cells in tiles of 32 that begin at 0 and 24 are 42;
# CogVideoX's tiles here are 6 x 5 cells at every 5 and 4.
RATIOS = {
    "tiny/wan": 42 / 34,
    "tiny/wan2.2": 42 / 34,
    "tiny/wan2.2-ti2v": 22 / 18,
    "tiny/hunyuanvideo": 42 / 34,
    "tiny/cogvideox": (6 + 3) / 8 * (5 + 5 + 4) / 12,
    "tiny/cogvideox1.5": (6 + 3) / 8 * (5 + 5 + 4) / 12,
    "tiny/ltx": 19 / 17,
}
WAYS = [
    *((model, engine, "--vae_tiling") for model in RATIOS for engine in ("diffusers", "xdit")),
    *((model, engine, "--vae_slicing") for model in RATIOS for engine in ("diffusers", "xdit")),
]
QUICK = {
    ("tiny/cogvideox", "diffusers", "--vae_tiling"),
    ("tiny/hunyuanvideo", "diffusers", "--vae_slicing"),
}


def engine_of(cluster: Cluster, model: str, *words: str) -> Any:
    words = ("--save_latents", "--workload.inference_steps", STEPS, "--workload.dtype", "float32", *words)
    plan = make_plan(parse_args(words_of(model, list(words))), resolve_model(model), 1, "cpu", "a device")
    return load_engine(plan, cluster)


def has_engine(model: str, engine: str) -> bool:
    return engine in resolve_model(model).family.modes


@pytest.mark.parametrize(
    ("model", "engine", "option"),
    [
        pytest.param(*way, marks=() if way in QUICK else pytest.mark.full)
        for way in WAYS
        if has_engine(way[0], way[1])
    ],
)
def test_a_video_is_decoded_in_the_parts_that_diffusers_makes(
    cluster: Cluster, model: str, engine: str, option: str
) -> None:
    height, width = TILED_SIZES[model]
    is_tiled = option == "--vae_tiling"
    batch = FOX if is_tiled else WHALE
    size = ("--workload.height", height, "--workload.width", width) if is_tiled else ()
    words = ("--engine", engine, "--workload.batch_size", str(len(batch.prompts)), *size)
    served = engine_of(cluster, model, *words, option)
    made = served.generate(batch)
    effects = served.effects(0)
    optimizations = served.plan.optimizations
    shape = (9, 3, served.plan.height_px, served.plan.width_px)
    served.close()
    latents = torch.cat(made.latents)
    by_hand = decoded_by_hand(model, latents, tiling=is_tiled, slicing=not is_tiled)
    assert made.images.shape == (len(batch.prompts), *shape)
    assert torch.equal(made.images, by_hand)
    whole = decoded_by_hand(model, latents)
    found = effects["vae"]
    assert found["images_per_call"] == 1 and found["tiled"] is is_tiled
    if is_tiled:
        assert found["cells_ratio"] == pytest.approx(RATIOS[model])
        assert not torch.equal(by_hand, whole), "tiles see nothing beyond their edges"
    else:
        assert found["cells_ratio"] == 1 and found["decoder_calls"] % 2 == 0
        assert torch.allclose(by_hand, whole, atol=1e-5)
    assert optimizations_without_effect(optimizations, [effects]) == []


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        # Seventeen frames are five latent ones, of which these decoders take some at a time as they are.
        ("tiny/hunyuanvideo", 2),
        pytest.param("tiny/cogvideox", 2, marks=pytest.mark.full),
        pytest.param("tiny/wan", 5, marks=pytest.mark.full),
    ],
)
def test_frames_in_parts_are_no_tiles(cluster: Cluster, model: str, calls: int) -> None:
    small = ("--workload.height", "32", "--workload.width", "32", "--workload.num_frames", "17")
    served = engine_of(cluster, model, "--engine", "diffusers", *small, "--vae_tiling")
    served.generate(FOX)
    effects = served.effects(0)
    served.close()
    assert effects["vae"]["decoder_calls"] == calls and effects["vae"]["tiled"] is False
    (line,) = optimizations_without_effect(Optimizations(vae_tiling=True), [effects])
    assert line.startswith("--vae_tiling decoded each")


@pytest.mark.parametrize(
    ("model", "words", "reason"),
    [
        ("tiny/wan", ("--cache_method", "pab"), r"counts a denoiser's calls.*fbcache or taylorseer"),
        ("tiny/wan", ("--cache_method", "fastercache"), r"counts a denoiser's calls"),
        ("tiny/wan", ("--cache_method", "magcache"), r"has none for wan models"),
        ("tiny/ltx", ("--cache_method", "fastercache"), r"has none for ltx models.*fbcache or"),
        ("tiny/wan", ("--vae_channels_last",), r"the decoder of wan models convolves over time too"),
        ("tiny/ltx", ("--fuse_qkv",), r"--fuse_qkv: .*of ltx models"),
        ("tiny/hunyuanvideo", ("--fuse_qkv",), r"--fuse_qkv: .*of hunyuan-video models"),
        (
            "tiny/hunyuanvideo",
            ("--vae_slicing",),
            r"the videos of a batch one by one; with one video at a time",
        ),
        ("tiny/cogvideox", ("--use_parallel_vae",), r"DistVAE knows no decoder of AutoencoderKLCogVideoX"),
    ],
)
def test_what_a_family_of_videos_has_not_is_refused_with_the_reason(
    model: str, words: tuple[str, ...], reason: str
) -> None:
    args = parse_args(words_of(model, ["--engine", "diffusers", *words]))
    with pytest.raises(UserError, match=reason):
        make_plan(args, resolve_model(model), 1, "cpu", "a device")


def test_a_video_of_another_size_is_not_measured(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """CogVideoX's tiles are half of a size in its VAE's file, of which not every one can be put together."""
    served = engine_of(cluster, "tiny/cogvideox", "--engine", "diffusers", "--vae_tiling")
    vae = served.pipeline.vae
    monkeypatch.setattr(vae, "tile_sample_min_height", 32)
    monkeypatch.setattr(vae, "tile_latent_min_height", 4)
    with pytest.raises(UserError, match=r"makes videos of 64x\d+ .* where 64x64 .*leave --vae_tiling out"):
        served.generate(FOX)
    served.close()
