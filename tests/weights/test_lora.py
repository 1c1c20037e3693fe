"""LoRA weights that the test makes itself: merged exactly, and refused where they do not fit."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.weights import pipeline as loading
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.tiny import tiny_folder

LAYER = "transformer_blocks.0.attn.to_q"
RANK = 2


def load(weights, **options):
    fields = {"revision": None, "dtype": "float32", "variant": None, "lora": None, "allow_pickle": False}
    plan = SimpleNamespace(
        weights_from=str(weights), weights="pretrained", trust_remote_code=False, **(fields | options)
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


def test_lora_of_another_model_is_refused(flux, lora):
    save_file(
        {"unet.other.lora_A.weight": torch.ones(2, 2)}, lora.folder / "pytorch_lora_weights.safetensors"
    )
    with pytest.raises(UserError, match="does not fit FluxPipeline"):
        load(flux, lora=str(lora.folder))


def test_lora_of_another_size_is_refused(flux, lora):
    keys = {f"transformer.{LAYER}.lora_A.weight": torch.ones(2, 32)}
    keys[f"transformer.{LAYER}.lora_B.weight"] = torch.ones(32, 2)
    save_file(keys, lora.folder / "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError, match="does not fit FluxPipeline"):
        load(flux, lora=str(lora.folder))


def test_empty_folder_and_pickle_are_refused(flux, lora, tmp_path_factory):
    with pytest.raises(UserError, match=r"does not fit|cannot be loaded"):
        load(flux, lora=str(tmp_path_factory.mktemp("empty")))
    pickled = shutil.move(lora.folder / "pytorch_lora_weights.safetensors", lora.folder / "lora.bin")
    with pytest.raises(UserError, match=r"not a safetensors file; .*--allow_pickle"):
        load(flux, lora=str(pickled))


def test_family_without_lora_is_refused(lora, tmp_path):
    with pytest.raises(UserError, match="no LoRA for PixArtSigmaPipeline"):
        load(tiny_folder("tiny/pixart-sigma", tmp_path / "tiny"), lora=str(lora.folder))
