"""LoRA weights that the test makes itself: merged exactly, and refused where they do not fit."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights import pipeline as loading
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.tiny import tiny_folder

LAYER = "transformer_blocks.0.attn.to_q"
LAYER_OF_PIXART = "transformer_blocks.1.attn2.to_q"
RANK = 2


def load(weights, **options):
    fields = {"revision": None, "dtype": "float32", "variant": None, "lora": None, "allow_pickle": False}
    plan = SimpleNamespace(
        weights_from=str(weights),
        weights="pretrained",
        spec=BY_ID["tiny/flux"],
        trust_remote_code=False,
        **(fields | options),
    )
    return loading.load(locate(plan), plan, "cpu")


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return tiny_folder("tiny/flux", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def lora(tmp_path):
    """A folder as peft and diffusers write one, with an update of one layer."""
    generator = torch.Generator().manual_seed(3)
    down, up = (torch.randn(shape, generator=generator) for shape in ((RANK, 64), (64, RANK)))
    keys = {f"transformer.{LAYER}.lora_A.weight": down, f"transformer.{LAYER}.lora_B.weight": up}
    save_file(keys, tmp_path / "pytorch_lora_weights.safetensors")
    return SimpleNamespace(folder=tmp_path, update=up @ down)


def weight(pipeline):
    return pipeline.transformer.get_submodule(LAYER).weight


@pytest.mark.parametrize("as_file", [False, True])
def test_update_is_added_and_no_adapter_stays(flux, lora, as_file):
    path = lora.folder / "pytorch_lora_weights.safetensors" if as_file else lora.folder
    plain, merged = load(flux), load(flux, lora=str(path))
    assert torch.allclose(weight(merged), weight(plain) + lora.update, atol=1e-6)
    names = [name for name, _ in plain.transformer.named_parameters()]
    assert [name for name, _ in merged.transformer.named_parameters()] == names
    assert merged.get_list_adapters() == {}


def keys_of(*layers, width=64):
    """A LoRA's tensors for layers of the transformer, by name."""
    return {
        f"transformer.{layer}.lora_{part}.weight": torch.ones(shape)
        for layer in layers
        for part, shape in (("A", (RANK, width)), ("B", (width, RANK)))
    }


def complaint(flux, lora, tensors):
    save_file(tensors, lora.folder / "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError) as error:
        load(flux, lora=str(lora.folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lora_of_another_model_is_refused_with_its_keys(flux, lora):
    line = complaint(flux, lora, {"unet.other.lora_A.weight": torch.ones(2, 2)})
    assert "does not fit FluxPipeline: 1 of its 1 keys fit no layer: unet.other.lora_A.weight;" in line


def test_lora_that_fits_in_part_is_refused_with_the_keys_that_do_not(flux, lora):
    """Merged in part it would be another image than the one that was asked for, without a word."""
    others = [f"transformer_blocks.{number}.attn.to_q" for number in (7, 8)]
    line = complaint(flux, lora, keys_of(LAYER, *others))
    assert "4 of its 6 keys fit no layer: " in line and line.count("transformer_blocks.") == 3
    assert "and 1 more;" in line and f"transformer.{LAYER}" not in line


def test_lora_of_another_size_is_refused_with_the_sizes(flux, lora):
    line = complaint(flux, lora, keys_of(LAYER, width=32))
    assert f"keys of another size: {LAYER}.lora_" in line
    assert re.search(r"is 2, 32, the model's 2, 64|is 32, 2, the model's 64, 2", line)


def test_empty_folder_and_pickle_are_refused(flux, lora, tmp_path_factory):
    with pytest.raises(UserError, match=r"does not fit|cannot be loaded"):
        load(flux, lora=str(tmp_path_factory.mktemp("empty")))
    pickled = shutil.move(lora.folder / "pytorch_lora_weights.safetensors", lora.folder / "lora.bin")
    with pytest.raises(UserError, match=r"not a safetensors file; .*--allow_pickle"):
        load(flux, lora=str(pickled))


@pytest.fixture(scope="module")
def pixart(tmp_path_factory):
    return tiny_folder("tiny/pixart-sigma", tmp_path_factory.mktemp("tiny"))


def adapter(folder, *, rank=RANK, alpha=4, targets=("to_q",), layer=LAYER_OF_PIXART, width=96):
    """A LoRA of one layer in peft's own format, and its update of that layer."""
    generator = torch.Generator().manual_seed(3)
    down, up = (torch.randn(shape, generator=generator) for shape in ((rank, width), (width, rank)))
    keys = {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
    folder.mkdir(exist_ok=True)
    save_file(keys, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(targets)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return up @ down * alpha / rank


@pytest.mark.parametrize("as_file", [False, True])
def test_an_adapter_is_merged_where_diffusers_has_no_lora(pixart, tmp_path, as_file):
    update = adapter(tmp_path / "lora", targets=[LAYER_OF_PIXART])
    path = tmp_path / "lora" / "adapter_model.safetensors" if as_file else tmp_path / "lora"
    plain, merged = load(pixart), load(pixart, lora=str(path))
    before, after = plain.transformer.state_dict(), merged.transformer.state_dict()
    assert list(before) == list(after), "no adapter stays"
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == [f"{LAYER_OF_PIXART}.weight"]
    assert torch.allclose(after[changed[0]], before[changed[0]] + update, atol=1e-6)


def test_an_adapter_that_does_not_fit_is_refused(pixart, lora, tmp_path):
    def refused():
        with pytest.raises(UserError, match="; give a LoRA") as error:
            load(pixart, lora=str(tmp_path / "lora"))
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "lora").mkdir()
    assert "no adapter_config.json and no adapter_model.safetensors" in refused()
    adapter(tmp_path / "lora")
    assert "of its keys fit no layer, or are missing" in refused(), "to_q of other blocks has no weights"
    adapter(tmp_path / "lora", targets=["to_nowhere"])
    assert "to_nowhere" in refused()
    adapter(tmp_path / "lora", targets=[LAYER_OF_PIXART], width=32)
    assert "keys of another size" in (line := refused()) and "is 2, 32, the model's 2, 96" in line
