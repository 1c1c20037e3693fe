"""Tokenizers that are built in the process: published sizes, padded lengths, two tokens a word."""

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Tokenizer, architecture
from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

PROMPT = "a majestic dragon flying over the ancient castle at sunset, highly detailed digital painting"
CASES = [
    ("black-forest-labs/FLUX.1-dev", "tokenizer"),
    ("black-forest-labs/FLUX.1-dev", "tokenizer_2"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer_2"),
    ("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", "tokenizer"),
    ("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", "tokenizer_2"),
]


@pytest.mark.parametrize(("model_id", "name"), CASES)
def test_size_length_and_ids(model_id, name):
    model = architecture(model_id)
    wanted = model.tokenizers[name]
    tokenizer = build_tokenizer(wanted)
    encoder = model.components[name.replace("tokenizer", "text_encoder")]
    assert len(tokenizer) == wanted.vocabulary <= encoder.config["vocab_size"]
    assert tokenizer.model_max_length == wanted.model_max_length

    words = len(PROMPT.split())
    ids = tokenizer(PROMPT).input_ids
    assert words < len(ids) < 3.2 * words  # published vocabularies: about 1.3 a word
    assert all(0 <= token < encoder.config["vocab_size"] for token in ids)

    padded = tokenizer(
        [PROMPT, "x"], padding="max_length", max_length=wanted.model_max_length, truncation=True
    )
    assert {len(row) for row in padded.input_ids} == {wanted.model_max_length}
    assert sum(padded.attention_mask[0]) == len(ids)
    assert tokenizer("a dragon").input_ids != tokenizer("a castle").input_ids


def test_clip_ends_in_its_largest_id():
    """CLIP's text model takes the pooled state at the largest id."""
    tokenizer = build_tokenizer(architecture("black-forest-labs/FLUX.1-dev").tokenizers["tokenizer"])
    assert tokenizer.eos_token_id == 49407
    assert max(tokenizer(PROMPT).input_ids) == tokenizer(PROMPT).input_ids[-1] == 49407


def test_sd3_pads_its_second_clip_tokenizer_with_an_exclamation_mark():
    wanted = architecture("stabilityai/stable-diffusion-3-medium-diffusers").tokenizers["tokenizer_2"]
    assert build_tokenizer(wanted).pad_token_id == 0


def test_any_text_has_tokens():
    for wanted in architecture("black-forest-labs/FLUX.1-dev").tokenizers.values():
        assert len(build_tokenizer(wanted)("émoji 🐉 №7\n\t").input_ids) > 2


def test_an_unknown_class_is_one_line():
    with pytest.raises(UserError, match="a LlamaTokenizer cannot be built"):
        build_tokenizer(Tokenizer("tokenizer", "transformers.LlamaTokenizer", 32000, 512))
