"""Published checkpoints: found by name, read without running anything, and held to their keys and shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.files import find_files
from mlenergy.diffusion.engines.autoregressive.sampling import SamplingOptions, generate
from mlenergy.diffusion.engines.autoregressive.var_model import build_var
from mlenergy.diffusion.engines.autoregressive.var_vae import training_parts
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.var import VAE_FILE, files_of

CPU = torch.device("cpu")
TRANSFORMER_FILE = "var_d16.pth"


def published(model):
    """The model's two state dicts in the authors' layout, training's buffers and encoder included."""
    config, parts = model.config, model.components
    tokens = config.tokens
    transformer = {f"class_emb.{key}": value for key, value in parts["class_embedding"].state_dict().items()}
    transformer |= parts["transformer"].state_dict()
    transformer["lvl_1L"] = torch.zeros(1, tokens, dtype=torch.long)
    transformer["attn_bias_for_masking"] = torch.zeros(1, 1, tokens, tokens)
    for layer in range(config.depth):
        transformer[f"blocks.{layer}.attn.zero_k_bias"] = torch.zeros(config.width)
    vae = dict(parts["vae"].state_dict())
    vae |= {key: torch.zeros(shape) for key, shape in training_parts(config.vae).items()}
    vae["quantize.ema_vocab_hit_SV"] = torch.zeros(len(config.sides), config.vae.vocabulary)
    return transformer, vae


@pytest.fixture
def folder(tmp_path, model):
    transformer, vae = published(model)
    torch.save(transformer, tmp_path / TRANSFORMER_FILE)
    torch.save(vae, tmp_path / VAE_FILE)
    return tmp_path


@pytest.fixture
def plan(folder, plan_of, own_spec):
    """A plan of the tiny sizes, whose files are those of the folder."""
    facts = replace(own_spec.next_scale, files=files_of(16), source=str(folder))
    return plan_of(spec=replace(own_spec, next_scale=facts))


def load(plan):
    cluster = Cluster.start(Rank(), "cpu")
    try:
        return build_var(plan, find_files(plan, cluster), CPU)
    finally:
        cluster.close()


def change(folder, file, **changes):
    state = torch.load(folder / file, weights_only=True)
    for key, value in changes.items():
        key = key.replace("__", ".")
        state.pop(key) if value is None else state.update({key: value})
    torch.save(state, folder / file)


@torch.no_grad()
def image(model):
    schedule = resolve_model("tiny/var").next_scale.schedules[64, 64]
    return generate(model, Batch(("",), (3,), (5,)), schedule, SamplingOptions(4.0, 900, 0.95), CPU)


def test_a_checkpoint_in_the_published_layout_gives_the_same_image(plan, model):
    loaded = load(plan)
    assert torch.equal(image(loaded), image(model))
    assert not any(value.requires_grad for part in loaded.components.values() for value in part.parameters())


def test_a_transformer_without_training_buffers_loads(plan, folder):
    change(folder, TRANSFORMER_FILE, lvl_1L=None, attn_bias_for_masking=None)
    load(plan)


@pytest.mark.parametrize(
    ("file", "changes", "line"),
    [
        (TRANSFORMER_FILE, {"head__bias": None}, r"1 keys missing: head\.bias; give"),
        (TRANSFORMER_FILE, {"lvl_2L": torch.zeros(1)}, r"1 keys not known: lvl_2L"),
        (TRANSFORMER_FILE, {"class_emb__weight": None}, r"1 keys missing: class_emb\.weight"),
        (VAE_FILE, {"encoder__conv_in__bias": None}, r"1 keys missing: encoder\.conv_in\.bias"),
        (VAE_FILE, {"quant_conv__bias": torch.zeros(5)}, r"quant_conv\.bias is \(5,\) instead of \(8,\)"),
        (VAE_FILE, {"loss__logits": torch.zeros(5)}, r"1 keys not known: loss\.logits"),
    ],
)
def test_other_keys_and_shapes_are_an_error_that_lists_them(plan, folder, file, changes, line):
    change(folder, file, **changes)
    with pytest.raises(UserError, match=line):
        load(plan)


class Bomb:
    """Would end the process, were it unpickled."""

    def __reduce__(self):
        return (exit, (3,))


@pytest.mark.parametrize("content", [Bomb(), {"head.weight": Bomb()}, [1, 2]])
def test_nothing_in_a_file_is_run(plan, folder, content):
    torch.save(content, folder / TRANSFORMER_FILE)
    with pytest.raises(UserError, match=TRANSFORMER_FILE):
        load(plan)


def test_a_missing_file_is_named(plan, folder):
    (folder / VAE_FILE).unlink()
    with pytest.raises(UserError, match=f"lacks {VAE_FILE}"):
        load(plan)


def test_models_are_found_by_short_name_hub_id_folder_and_file(folder):
    by_name = resolve_model("var-d16")
    assert resolve_model("FoundationVision/var/var_d16.pth") is by_name
    with pytest.raises(UserError, match=r"holds 5 models; give one of var-d16, .*var-d36"):
        resolve_model("FoundationVision/var")
    for words in (folder, folder / TRANSFORMER_FILE):
        spec = resolve_model(str(words))
        assert (spec.model_id, spec.parameters) == (str(words), by_name.parameters)
        assert spec.next_scale.source == str(folder)
    (folder / "var_d30.pth").touch()
    with pytest.raises(UserError, match=r"holds 2 models.*var_d16\.pth.*var_d30\.pth"):
        resolve_model(str(folder))
    with pytest.raises(UserError, match="not one of the checkpoints that are known by name"):
        resolve_model(str(folder / VAE_FILE))
