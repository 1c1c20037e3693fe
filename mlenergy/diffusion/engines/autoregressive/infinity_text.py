"""Prompts to padded text features, by the encoder of a T5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Tokenizer
from mlenergy.diffusion.models.infinity import TextConfig
from mlenergy.diffusion.weights.random.fill import Draw, materialise
from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

_PADDED_ROWS = 28  # of the published T5 tables of 32,128 rows; no token has them


class TextEncoder:
    """A tokenizer and a T5 encoder.

    Every prompt is padded to `length` tokens, so that all calls have one shape, whatever the prompts; the
    padding is masked in the encoder and in every cross-attention. Longer prompts are cut off.
    """

    def __init__(self, tokenizer: Any, encoder: torch.nn.Module, length: int) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.length = length

    def __call__(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, length, channels) and mask (B, length), False at padding."""
        device = next(self.encoder.parameters()).device
        tokens = self.tokenizer(
            list(prompts), max_length=self.length, padding="max_length", truncation=True, return_tensors="pt"
        )
        ids = tokens.input_ids.to(device, non_blocking=True)
        visible = tokens.attention_mask.to(device, non_blocking=True)
        return self.encoder(input_ids=ids, attention_mask=visible)[0], visible.bool()


def load_text_encoder(folder: Path, length: int, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Tokenizer and encoder of a folder in transformers' format (google/flan-t5-xl).

    Raises:
        UserError: a file is missing or cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder = T5EncoderModel.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder} cannot be read as a T5 ({reason}); download google/flan-t5-xl again"
        ) from (error)
    return TextEncoder(tokenizer, encoder.to(device).eval().requires_grad_(False), length)


def random_text_encoder(
    config: TextConfig, length: int, device: torch.device, dtype: torch.dtype, draw: Draw
) -> TextEncoder:
    """An encoder of the same size with random weights, and a tokenizer that stands for the published one."""
    rows = config.vocabulary - (_PADDED_ROWS if config.source else 0)
    wanted = Tokenizer(
        "tokenizer", "transformers.T5Tokenizer", rows, length, sentinels=100 if config.source else 0
    )
    encoder = materialise(empty_text_encoder(config), device, dtype, draw)
    return TextEncoder(build_tokenizer(wanted), encoder.requires_grad_(False), length)


def empty_text_encoder(config: TextConfig) -> T5EncoderModel:
    """The encoder on the meta device, in eval mode."""
    with torch.device("meta"):
        encoder = T5EncoderModel(
            T5Config(
                d_model=config.width,
                d_kv=config.head_dim,
                d_ff=config.hidden,
                num_layers=config.layers,
                num_heads=config.heads,
                vocab_size=config.vocabulary,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                pad_token_id=0,
                eos_token_id=1,
            )
        )
    encoder.tie_weights()
    return encoder.eval()
