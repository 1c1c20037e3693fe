"""Counted FLOPs: the published figure, the shipped polynomials, the cache, a tiny model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.inputs import LatentSize
from mlenergy.diffusion.cost.shape import workload_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import (
    architecture,
    architecture_from,
    architecture_ids,
    tiny_ids,
)
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID

FLUX = "black-forest-labs/FLUX.1-dev"
CELLS_1024 = 128 * 128
# `make test` takes one at its full depth, and of each class the tiny one: the same code, with fewer layers.
QUICK = {FLUX, *tiny_ids()} - {"tiny/flux", "tiny/flux2-klein", "tiny/pixart-alpha", "tiny/sd3", "tiny/sd1.5"}


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

        monkeypatch.setattr(costs.subprocess, "run", refuse)

    return forbid


@pytest.fixture
def uncounted():
    """FLUX.1-dev as if it came without costs."""
    return replace(architecture(FLUX), costs={})


@pytest.mark.full
def test_fifty_steps_of_flux_are_the_published_number(uncounted, own_cache, no_child):
    entry = _entry(uncounted)
    assert entry.parent == own_cache
    entry.parent.mkdir(parents=True)
    entry.write_text('{"compon')  # torn: counted again, not believed
    counted = costs_of(uncounted)
    assert 50 * counted["transformer"].flops_at(1, CELLS_1024, 512) / 1e12 == pytest.approx(3719, rel=0.01)
    assert list(own_cache.iterdir()) == [entry]
    no_child()
    assert costs_of(uncounted) == counted


def test_what_may_not_be_counted_is_read_once_or_refused(uncounted, no_child, monkeypatch):
    no_child()
    assert costs_of(architecture(FLUX), may_count=False)
    with pytest.raises(UserError, match="not counted yet for this model"):
        costs_of(uncounted, may_count=False)
    entry, read, reads = _entry(uncounted), costs._read, []
    entry.parent.mkdir(parents=True)
    entry.write_text(json.dumps(architecture(FLUX).costs))
    monkeypatch.setattr(costs, "_read", lambda path: reads.append(path) or read(path))
    assert costs_of(uncounted, may_count=False) == costs_of(architecture(FLUX))
    assert reads == [entry]


def test_another_configuration_or_library_is_another_entry(monkeypatch):
    model = architecture(FLUX)
    first = _entry(model)
    assert _entry(model) == first
    assert _entry(replace(model, model_id="renamed")) == first
    assert _entry(architecture("black-forest-labs/FLUX.1-schnell")) != first
    monkeypatch.setattr(costs, "_code", lambda: "torch=99")
    assert _entry(model) != first


def test_the_key_of_an_entry_covers_the_code_that_counts():
    """Modules of the rooms of cost and weights that a count imports, by the import system itself."""
    code = (
        "import sys, mlenergy.diffusion.cost.fit;"
        "print(*(m.__file__ for n, m in sys.modules.items()"
        " if n.startswith(('mlenergy.diffusion.cost.', 'mlenergy.diffusion.weights.'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {Path(name) for name in done.stdout.split() if not name.endswith("__init__.py")}
    assert imported == set(costs.COUNTING_CODE)


@pytest.mark.parametrize(
    "model_id",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.full)
        for name in (*architecture_ids(), *tiny_ids())
        if architecture(name).costs and BY_ID[name].family.output == "image"
    ],
)
def test_shipped_costs_are_what_counting_gives_at_other_sizes(model_id):
    import torch

    from mlenergy.diffusion.cost.count import Counter

    model = architecture(model_id)
    found, counter = costs_of(model), Counter(model)
    size, text = LatentSize(80, 112), 256 if "hunyuan" in model_id.lower() else 300
    if model.pipeline_class == "ZImagePipeline":
        text = 320  # it pads texts to multiples of 32, as workload_of does before it asks
    denoiser = found[model.denoiser.name]
    # Factors are kept to a thousandth of a FLOP, which the square of a tiny model's cells feels.
    assert denoiser.flops_at(2, size.cells, text) == pytest.approx(counter.denoiser(2, size, text), rel=2e-6)
    assert found["vae"].flops_at(1, size.cells, 0) == pytest.approx(counter.decode(1, size), rel=1e-6)
    for encoder in model.text_encoders:
        exact = counter.text(encoder, 3, text)
        assert found[encoder.name].flops_at(3, 0, text) == pytest.approx(exact, rel=1e-6)
    # A line in cells and text; what does not grow with them shows in a tiny model.
    near = 0.05 if model_id.startswith("tiny/") else 0.02
    exact = counter.denoiser_bytes(2, size, text, torch.bfloat16)
    assert denoiser.activation_bytes_at(2, size.cells, text, 2) == pytest.approx(exact, rel=near)
    exact = counter.decode_bytes(1, size, torch.bfloat16)
    assert found["vae"].activation_bytes_at(1, size.cells, 0, 2) == pytest.approx(exact, rel=near)


def test_guidance_doubles_the_denoiser_and_the_text_but_not_the_decode(plan_of):
    model_id = "stabilityai/stable-diffusion-3-medium-diffusers"
    model = architecture(model_id)
    guided = workload_of(plan_of(model_id), model)
    plain = workload_of(plan_of(model_id, guidance_scale=1.0), model)
    assert (guided.guidance_rows, guided.text_passes) == (2, 2)
    assert (plain.guidance_rows, plain.text_passes) == (1, 1)
    transformer = costs_of(model)["transformer"]
    assert transformer.flops_at(2, 16384, 256) == 2 * transformer.flops_at(1, 16384, 256)


def test_sdxl_encodes_no_negative_prompt_that_is_not_there(plan_of):
    model_id = "stabilityai/stable-diffusion-xl-base-1.0"
    model = architecture(model_id)
    assert workload_of(plan_of(model_id), model).text_passes == 1
    assert workload_of(plan_of(model_id, negative_prompt="blurry"), model).text_passes == 2


def test_text_lengths_are_the_families_own(plan_of):
    images = [name for name in architecture_ids() if BY_ID[name].family.output == "image"]
    lengths = {name: workload_of(plan_of(name), architecture(name)).t5_tokens for name in images}
    assert lengths[FLUX] == 512
    assert lengths["Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"] == 256
    assert lengths["stabilityai/stable-diffusion-xl-base-1.0"] is None
    assert lengths["PixArt-alpha/PixArt-XL-2-1024-MS"] == 120


def test_a_tiny_model_is_counted_from_its_own_configuration(tiny_flux):
    from mlenergy.diffusion.cost.count import Counter

    # Its linear layers alone, by hand: what the count may not fall below.
    hidden, tokens, text = 64, 256, 64
    step = Counter(tiny_flux).denoiser(1, LatentSize(32, 32), text)
    double = 2 * (tokens + text) * (4 + 8) * hidden * hidden
    single = 2 * (tokens + text) * (3 + 4 + 5) * hidden * hidden
    attention = 2 * 2 * (tokens + text) ** 2 * hidden
    assert step == pytest.approx(4 * (double + single + 2 * attention), rel=0.05)
    transformer = costs_of(tiny_flux)["transformer"]
    assert transformer.block_parameters > 0
    assert transformer.flops_at(1, 32 * 32, text) == pytest.approx(step, rel=1e-6)


def test_what_cannot_be_counted_says_so():
    model = architecture(FLUX)
    part = replace(model.denoiser, class_path="diffusers.MochiTransformer3DModel", config={})
    with pytest.raises(UserError, match="MochiTransformer3DModel cannot be counted"):
        costs_of(replace(model, components={**model.components, "transformer": part}, costs={}))


def test_every_listed_model_has_costs():
    for name in architecture_ids():
        assert bool(architecture(name).costs) is BY_ID[name].family.has_cost_model, name


@pytest.fixture
def tiny_flux():
    from mlenergy.diffusion.weights.tiny import tiny_folder

    return architecture_from(read_model(str(tiny_folder("tiny/flux"))))


def _entry(model):
    return costs._entry(costs._request(model))
