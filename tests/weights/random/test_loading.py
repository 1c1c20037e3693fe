"""The loading room's branch for random weights."""

from types import SimpleNamespace

import torch

from mlenergy.diffusion.weights import pipeline as loading
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.random.pipeline import start_report

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def test_a_plan_with_random_weights_loads_nothing(reduced, monkeypatch):
    monkeypatch.setattr(loading, "architecture", reduced)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = SimpleNamespace(
        weights="random", spec=SimpleNamespace(model_id=SDXL), dtype="bfloat16", weights_from=SDXL
    )
    pipeline = loading.load(locate(plan), plan, "cpu")
    assert type(pipeline).__name__ == "StableDiffusionXLPipeline"
    assert pipeline.unet.dtype is torch.bfloat16
    assert pipeline.config.force_zeros_for_empty_prompt is True
    assert start_report(pipeline).seed == 0
