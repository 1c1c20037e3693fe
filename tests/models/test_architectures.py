"""The architecture files: complete, sourced, and as large as the published models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlenergy.diffusion.models.architectures as room
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import (
    UNVERIFIED,
    architecture,
    architecture_from,
    architecture_ids,
    counted_ids,
    has_architecture,
    tiny_ids,
)
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID

FILES = sorted(Path(room.__file__).parent.rglob("*.json"))
TOLERANCE = 0.005


def test_every_published_architecture_is_of_a_listed_model():
    assert len(architecture_ids()) == len(FILES) - len(tiny_ids()) >= 9
    assert all(
        BY_ID[name].family.pipeline_class == architecture(name).pipeline_class for name in architecture_ids()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_names_its_source(path):
    data = json.loads(path.read_text())
    legend = data["sources"]
    used = {source for part in data["components"].values() for _value, source in part["config"].values()} | {
        source for _value, source in data["pipeline_options"].values()
    }
    assert used == set(legend)
    assert all(len(text) > 20 for text in legend.values())


@pytest.mark.parametrize("model_id", tiny_ids())
def test_a_tiny_model_is_listed_and_every_module_has_a_seed_of_its_own(model_id):
    seeds = [part.seed for part in architecture(model_id).modules.values()]
    assert BY_ID[model_id].family.pipeline_class == architecture(model_id).pipeline_class
    assert None not in seeds and len(set(seeds)) == len(seeds)


def test_what_nobody_checked_is_marked():
    assert "scheduler.use_dynamic_shifting" not in architecture("black-forest-labs/FLUX.1-dev").unverified()
    assert "vae.scaling_factor" in architecture("PixArt-alpha/PixArt-XL-2-1024-MS").unverified()
    assert "scheduler.shift" in architecture("stabilityai/stable-diffusion-3.5-large").unverified()
    sources = architecture("black-forest-labs/FLUX.1-dev").denoiser.sources
    assert UNVERIFIED not in sources.values()
    assert "FLUX.1-dev" in sources["num_layers"]


@pytest.mark.parametrize("model_id", architecture_ids())
def test_parameter_counts_are_the_published_ones(model_id):
    from mlenergy.diffusion.weights.random.modules import empty_module

    model = architecture(model_id)
    counted = {}
    for name, part in model.modules.items():
        module = empty_module(part)
        assert all(parameter.is_meta for parameter in module.parameters())
        counted[name] = sum(parameter.numel() for parameter in module.parameters())
        if model.costs:
            assert counted[name] == model.costs["components"][name]["parameters"]
        if part.published is not None:
            tables = sum(buffer.numel() for buffer in module.buffers()) if part.published.rounding else 0
            allowed = max(TOLERANCE, part.published.rounding)
            assert counted[name] + tables == pytest.approx(part.published.parameters, rel=allowed)
    assert model.denoiser.published is not None
    assert sum(counted.values()) == BY_ID[model_id].parameters


# Published counts that are further than 0.5 % from the configuration's, and why: the count as the card prints
# it, of the denoiser and of no other part, with the digits that it prints.
ROUNDED = {
    "black-forest-labs/FLUX.2-dev": (32, 0, "whole billions of the denoiser: 32.223"),
    "stabilityai/stable-diffusion-3.5-medium": (2.5, 1, "the denoiser and its position table: 2.243 + 0.226"),
    "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers": (
        *(4.8, 1),
        "three times the 1.6 of 20 layers, for 60; the embeddings, which do not grow, leave 4.722",
    ),
}


def test_a_count_that_differs_from_the_published_one_is_explained():
    found = {}
    for model_id in counted_ids():
        published = architecture(model_id).denoiser.published
        counted = architecture(model_id).costs["components"][architecture(model_id).denoiser.name]
        if abs(counted["parameters"] / published.parameters - 1) > TOLERANCE:
            found[model_id] = (counted["parameters"] + counted["buffers"], published.parameters / 1e9)
    assert set(found) == set(ROUNDED)
    small = architecture("Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers").costs["components"]
    thrice = 3 * round(small["transformer"]["parameters"] / 1e9, 1)
    for model_id, (printed, digits, reason) in ROUNDED.items():
        counted, published = found[model_id]
        assert published == printed
        known = thrice if reason.startswith("three") else counted / 1e9
        assert round(known, digits) == printed, (model_id, reason)


def test_an_unknown_id_lists_the_known_ones():
    assert not has_architecture("owner/model")
    with pytest.raises(UserError, match=r"no architecture of owner/model.*FLUX\.1-dev"):
        architecture("owner/model")


def test_a_folder_gives_its_own_configuration(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "scheduler").mkdir()
    index = {
        "_class_name": "FluxPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "image_encoder": [None, None],
        "force_zeros_for_empty_prompt": True,
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "X", "num_layers": 4}')
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"shift": 3.0}')
    found = architecture_from(read_model(str(tmp_path)))
    assert dict(found.denoiser.config) == {"num_layers": 4}
    assert found.components["scheduler"].config == {"shift": 3.0}
    assert found.options == {"force_zeros_for_empty_prompt": True}
    assert set(found.components) == {"transformer", "scheduler"}
    (tmp_path / "transformer" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        architecture_from(read_model(str(tmp_path)))


def test_reading_needs_no_torch():
    code = (
        "import sys, mlenergy.diffusion.cost.size, mlenergy.diffusion.cost.efficiency;"
        "import mlenergy.diffusion.models.architectures.reader as a;"
        "[a.architecture(name) for name in a.architecture_ids()];"
        "print('torch' in sys.modules, 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
