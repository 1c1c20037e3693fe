"""Counted FLOPs: the published figure, the shipped polynomials, the cache, a tiny model."""

import json
from dataclasses import replace

import pytest

from mlenergy.diffusion.cost import cached
from mlenergy.diffusion.cost.cached import counted_costs, counted_workload
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.workload import Workload, workload_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import (
    architecture,
    architecture_from,
    architecture_ids,
)
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID

FLUX = "black-forest-labs/FLUX.1-dev"
FLUX_1024 = Workload(1024, 1024, images=1, guidance_rows=1, text_passes=1, t5_tokens=512)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mlenergy" / "flops"


@pytest.fixture
def no_child(monkeypatch):
    """Called, it forbids another counting process."""

    def forbid():
        def refuse(*_args, **_kwargs):
            raise AssertionError("counted anew")

        monkeypatch.setattr(cached.subprocess, "run", refuse)

    return forbid


def test_fifty_steps_of_flux_are_the_published_number(own_cache, no_child):
    entry = own_cache / f"{_key(architecture(FLUX), FLUX_1024)}.json"
    entry.parent.mkdir(parents=True)
    entry.write_text('{"text_enc')  # torn: counted again, not believed
    counted = counted_workload(architecture(FLUX), FLUX_1024)
    assert 50 * counted["denoise_step"] / 1e12 == pytest.approx(3719, rel=0.01)
    assert list(own_cache.iterdir()) == [entry]
    assert json.loads(entry.read_text()) == counted
    no_child()
    assert counted_workload(architecture(FLUX), FLUX_1024) == counted


def test_another_size_model_or_library_is_another_entry(monkeypatch):
    model, key = architecture(FLUX), _key
    first = key(model, FLUX_1024)
    assert key(model, FLUX_1024) == first
    assert key(replace(model, model_id="renamed"), FLUX_1024) == first
    assert key(model, replace(FLUX_1024, images=2)) != first
    assert key(architecture("black-forest-labs/FLUX.1-schnell"), FLUX_1024) != first
    monkeypatch.setattr(cached, "_code", lambda: "torch=99")
    assert key(model, FLUX_1024) != first


@pytest.mark.parametrize("model_id", architecture_ids())
def test_shipped_costs_are_what_counting_gives_at_other_sizes(model_id):
    import torch

    from mlenergy.diffusion.cost.count import Counter

    model = architecture(model_id)
    costs, counter = costs_of(model), Counter(model)
    height, width, text = 80, 112, 256 if "Hunyuan" in model_id else 300
    denoiser = costs[model.denoiser.name]
    assert denoiser.flops_at(2, height * width, text) == pytest.approx(
        counter.denoiser(2, height, width, text), rel=1e-6
    )
    assert costs["vae"].flops_at(1, height * width, 0) == pytest.approx(
        counter.decode(1, height, width), rel=1e-6
    )
    for encoder in model.text_encoders:
        exact = counter.text(encoder, 3, text)
        assert costs[encoder.name].flops_at(3, 0, text) == pytest.approx(exact, rel=1e-6)
    exact = counter.denoiser_bytes(2, height, width, text, torch.bfloat16)
    assert denoiser.activation_bytes_at(2, height * width, text, 2) == pytest.approx(exact, rel=0.02)
    exact = counter.decode_bytes(1, height, width, torch.bfloat16)
    assert costs["vae"].activation_bytes_at(1, height * width, 0, 2) == pytest.approx(exact, rel=0.02)


def test_guidance_doubles_the_denoiser_and_the_text_but_not_the_decode(plan_of):
    model_id = "stabilityai/stable-diffusion-3-medium-diffusers"
    model = architecture(model_id)
    guided = workload_of(plan_of(model_id), model)
    plain = workload_of(plan_of(model_id, guidance_scale=1.0), model)
    assert (guided.guidance_rows, guided.text_passes) == (2, 2)
    assert (plain.guidance_rows, plain.text_passes) == (1, 1)
    costs = costs_of(model)["transformer"]
    assert costs.flops_at(2, 16384, 256) == 2 * costs.flops_at(1, 16384, 256)


def test_sdxl_encodes_no_negative_prompt_that_is_not_there(plan_of):
    model_id = "stabilityai/stable-diffusion-xl-base-1.0"
    model = architecture(model_id)
    assert workload_of(plan_of(model_id), model).text_passes == 1
    assert workload_of(plan_of(model_id, negative_prompt="blurry"), model).text_passes == 2


def test_text_lengths_are_the_families_own(plan_of):
    lengths = {name: workload_of(plan_of(name), architecture(name)).t5_tokens for name in architecture_ids()}
    assert lengths[FLUX] == 512
    assert lengths["Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"] == 256
    assert lengths["stabilityai/stable-diffusion-xl-base-1.0"] is None
    assert lengths["PixArt-alpha/PixArt-XL-2-1024-MS"] == 120


def test_a_tiny_model_is_counted_from_its_own_configuration(tiny_flux):
    from mlenergy.diffusion.cost.count import count_workload

    small = replace(FLUX_1024, height_px=256, width_px=256, t5_tokens=64)
    counted = count_workload(tiny_flux, small)
    # Its linear layers alone, by hand: what the count may not fall below.
    hidden, tokens, text = 64, 256, 64
    double = 2 * (tokens + text) * (4 + 8) * hidden * hidden
    single = 2 * (tokens + text) * (3 + 4 + 5) * hidden * hidden
    attention = 2 * 2 * (tokens + text) ** 2 * hidden
    assert counted["denoise_step"] == pytest.approx(4 * (double + single + 2 * attention), rel=0.05)
    costs = counted_costs(tiny_flux)
    assert costs["components"]["transformer"]["block_parameters"] > 0
    terms = costs["components"]["transformer"]["flops"]
    cells = 32 * 32
    values = {
        "1": 1,
        "cells": cells,
        "cells2": cells**2,
        "text": text,
        "text2": text**2,
        "cells*text": cells * text,
    }
    assert sum(terms[term] * values[term] for term in terms) == pytest.approx(
        counted["denoise_step"], rel=1e-6
    )


def test_what_cannot_be_counted_says_so():
    model = architecture(FLUX)
    part = replace(model.denoiser, class_path="diffusers.QwenImageTransformer2DModel", config={})
    with pytest.raises(UserError, match="QwenImageTransformer2DModel cannot be counted"):
        counted_workload(replace(model, components={**model.components, "transformer": part}), FLUX_1024)


def test_every_listed_model_has_costs():
    assert all(architecture(name).costs for name in architecture_ids())
    assert all(BY_ID[name] for name in architecture_ids())


@pytest.fixture
def tiny_flux():
    from mlenergy.diffusion.weights.tiny import tiny_folder

    return architecture_from(read_model(str(tiny_folder("tiny/flux"))))


def _key(model, workload):
    return cached._key(cached._request("workload", model, workload.as_dict()))
