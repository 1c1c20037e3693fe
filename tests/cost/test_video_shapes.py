"""Cells and tokens of a video: what its denoiser takes, and what is decoded."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToVideo
from mlenergy.diffusion.cost.shape import Shape, attention_of, shape_of, short_text_tokens
from mlenergy.diffusion.models.architectures.reader import architecture
from mlenergy.diffusion.models.resolve import resolve_model


def shape(model: str, frames: int) -> Shape:
    work = TextToVideo(model_id=model, dataset="bundled", num_frames=frames)
    plan = make_plan(
        BenchmarkArgs(work, engine="diffusers", device="cpu"), resolve_model(model), 1, "cpu", "cpu"
    )
    return shape_of(plan, architecture(model))


@pytest.mark.parametrize(
    ("model", "frames", "denoised", "decoded", "tokens"),
    [
        ("tiny/cogvideox", 17, 5, 5, 5 * 24),
        (
            "tiny/cogvideox1.5",
            17,
            6,
            5,
            3 * 24,
        ),  # the last pair is filled up, and that is not decoded
        ("tiny/cogvideox1.5", 1, 2, 1, 24),
        ("tiny/hunyuanvideo", 13, 4, 4, 4 * 24),
    ],
)
def test_frames_are_denoised_in_whole_tokens_and_decoded_alone(
    model: str, frames: int, denoised: int, decoded: int, tokens: int
) -> None:
    found = shape(model, frames)
    area = (64 // 8) * (96 // 8)
    assert (found.cells, found.decoded_cells, found.frame_cells) == (denoised * area, decoded * area, area)
    assert found.image_tokens == tokens


def test_the_text_of_a_language_model_is_not_clips() -> None:
    model = architecture("tiny/hunyuanvideo")
    assert short_text_tokens(model) == 77
    found = shape("tiny/hunyuanvideo", 9)
    assert found.text_tokens == 256
    assert found.workload.encoded_tokens == (256 + 95,)


def test_attention_is_over_text_and_video_in_every_layer() -> None:
    cogvideox, hunyuan = (
        attention_of(architecture(f"tiny/{name}")) for name in ("cogvideox", "hunyuanvideo")
    )
    assert cogvideox is not None and hunyuan is not None
    assert (cogvideox.width, cogvideox.joint_layers, cogvideox.image_layers) == (64, 3, 0)
    assert (hunyuan.width, hunyuan.joint_layers, hunyuan.image_layers) == (64, 4, 0)
