"""tiny/hunyuandit: HunyuanDiT-v1.2's classes, four blocks (two halves with skips), four heads."""

from __future__ import annotations

import string

from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel, BertTokenizer

from mlenergy.diffusion.weights.tiny.texts import WIDTH, t5_encoder, t5_tokenizer
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise

_BERT_TOKENS = 77
_T5_TOKENS = 256


def build() -> HunyuanDiTPipeline:
    """The whole pipeline, without a safety checker, with the hub's default scheduler."""
    bert, t5 = _bert_tokenizer(), t5_tokenizer(_T5_TOKENS)
    return HunyuanDiTPipeline(
        transformer=_transformer(),
        scheduler=DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.03,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            steps_offset=1,
        ),
        vae=autoencoder(seed=41, latent_channels=4, scaling_factor=0.13025),
        text_encoder=_bert(bert),
        tokenizer=bert,
        text_encoder_2=t5_encoder(t5, seed=43),
        tokenizer_2=t5,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _bert_tokenizer() -> BertTokenizer:
    """BERT's own tokenizer class over single characters, alone and inside a word."""
    letters = [letter for letter in string.printable if not letter.isspace() and not letter.isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=_BERT_TOKENS
    )


def _bert(tokenizer: BertTokenizer) -> BertModel:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_BERT_TOKENS,
    )
    return randomise(BertModel(config), seed=42)


def _transformer() -> HunyuanDiT2DModel:
    model = HunyuanDiT2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=4,
        hidden_size=64,  # heads × head width
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=WIDTH,
        activation_fn="gelu-approximate",
        mlp_ratio=4.0,
        learn_sigma=True,
        text_len=_BERT_TOKENS,
        text_len_t5=_T5_TOKENS,
        use_style_cond_and_image_meta_size=False,
    )
    return randomise(model, seed=44)
