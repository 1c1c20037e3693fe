"""Published architectures at reduced width and depth: the same classes, options and schedulers."""

from dataclasses import replace

import pytest

from mlenergy.diffusion.models.architectures.reader import Architecture, Component, architecture

_CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 64,
}
_SMALL = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "BertModel": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "T5EncoderModel": {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_layers": 2, "num_heads": 4},
    "AutoencoderKL": {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1},
    "FluxTransformer2DModel": {
        "num_layers": 2,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "joint_attention_dim": 128,
        "pooled_projection_dim": 64,
    },
    "SD3Transformer2DModel": {
        "num_layers": 4,
        "num_attention_heads": 4,
        "caption_projection_dim": 256,
        "joint_attention_dim": 128,
        "pooled_projection_dim": 128,
        "pos_embed_max_size": 64,
    },
    "PixArtTransformer2DModel": {
        "num_layers": 4,
        "num_attention_heads": 4,
        "cross_attention_dim": 288,
        "caption_channels": 128,
    },
    "HunyuanDiT2DModel": {
        "num_layers": 4,
        "num_attention_heads": 4,
        "hidden_size": 352,
        "cross_attention_dim": 64,
        "cross_attention_dim_t5": 128,
        "pooled_projection_dim": 64,
    },
    "UNet2DConditionModel": {
        "block_out_channels": [64, 128, 256],
        "attention_head_dim": [2, 4, 8],
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 128,
        "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
}


def reduce(model_id: str) -> Architecture:
    """The architecture with fewer and narrower layers; vocabularies and text lengths stay."""
    full = architecture(model_id)
    parts = {name: _reduced(part) for name, part in full.components.items()}
    return replace(full, components=parts, costs={})


def _reduced(part: Component) -> Component:
    small = dict(_SMALL.get(part.class_name, {}))
    if part.class_name == "SD3Transformer2DModel" and part.config["dual_attention_layers"]:
        small["dual_attention_layers"] = [0, 1]
    return replace(part, config={**part.config, **small})


@pytest.fixture
def reduced():
    return reduce
