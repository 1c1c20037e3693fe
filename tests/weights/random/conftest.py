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
# A language model: FLUX.2 reads up to its thirtieth layer, and its vocabulary stays.
_LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 31,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_VAE = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1}
_SMALL = {
    "Qwen3Model": _LANGUAGE,
    "Qwen3ForCausalLM": _LANGUAGE,
    "Gemma2Model": {**_LANGUAGE, "num_hidden_layers": 2},
    "Mistral3ForConditionalGeneration": {
        "text_config": _LANGUAGE,
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "head_dim": 16,
        },
    },
    "Qwen2_5_VLForConditionalGeneration": {
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [2, 3, 3],
            },
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [0],
        },
    },
    "AutoencoderKLFlux2": _VAE,
    "AutoencoderKLQwenImage": {"base_dim": 16, "num_res_blocks": 1},
    "AutoencoderDC": {
        "encoder_block_out_channels": [32, 32, 64, 64, 64, 64],
        "decoder_block_out_channels": [32, 32, 64, 64, 64, 64],
        "encoder_layers_per_block": [1, 1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1, 1],
    },
    "Flux2Transformer2DModel": {
        "num_layers": 2,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "joint_attention_dim": 3 * 64,
    },
    "QwenImageTransformer2DModel": {"num_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 64},
    "ZImageTransformer2DModel": {
        "dim": 256,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 64,
    },
    "SanaTransformer2DModel": {
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "cross_attention_head_dim": 32,
        "cross_attention_dim": 128,
        "caption_channels": 64,
    },
    "Lumina2Transformer2DModel": {
        "hidden_size": 192,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "cap_feat_dim": 64,
    },
    "HunyuanVideo15Transformer3DModel": {
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "text_embed_dim": 64,
        "text_embed_2_dim": 128,
        "image_embed_dim": 32,
    },
    "Qwen2_5_VLTextModel": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]},
    },
    "AutoencoderKLHunyuanVideo15": {"block_out_channels": [32, 32, 32, 32, 32], "layers_per_block": 1},
    "LTX2VideoTransformer3DModel": {
        "num_layers": 2,
        "num_attention_heads": 2,
        "cross_attention_dim": 256,
        "audio_num_attention_heads": 2,
        "audio_cross_attention_dim": 128,
        "caption_channels": 64,
    },
    "Gemma3ForConditionalGeneration": {
        "text_config": {**_LANGUAGE, "num_hidden_layers": 2},
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
    },
    "LTX2TextConnectors": {
        "caption_channels": 64,
        "text_proj_in_factor": 3,
        "video_connector_num_attention_heads": 2,
        "video_connector_attention_head_dim": 32,
        "video_connector_num_layers": 1,
        "audio_connector_num_attention_heads": 2,
        "audio_connector_attention_head_dim": 32,
        "audio_connector_num_layers": 1,
    },
    "AutoencoderKLLTX2Video": {
        "block_out_channels": [16, 32, 64, 128],
        "decoder_block_out_channels": [16, 32, 64],
        "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1],
    },
    "AutoencoderKLLTX2Audio": {"num_res_blocks": 1},
    "LTX2Vocoder": {"hidden_channels": 64},
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "BertModel": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "T5EncoderModel": {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_layers": 2, "num_heads": 4},
    "AutoencoderKL": _VAE,
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
    small = {
        key: {**part.config[key], **value} if isinstance(part.config.get(key), dict) else value
        for key, value in _SMALL.get(part.class_name, {}).items()
    }
    if part.class_name == "SD3Transformer2DModel" and part.config["dual_attention_layers"]:
        small["dual_attention_layers"] = [0, 1]
    return replace(part, config={**part.config, **small})


@pytest.fixture
def reduced():
    return reduce
