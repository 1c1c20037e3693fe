"""Tokenizers and text encoders that are built in the process: a token a character."""

from __future__ import annotations

import string

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from mlenergy.diffusion.weights.tiny.weights import randomise

WIDTH = 32  # of every tiny text encoder
_CLIP_TOKENS = 77


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's own tokenizer class over single bytes, with no merges; at most 77 tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad_token, model_max_length=_CLIP_TOKENS)


def clip_encoder(
    tokenizer: CLIPTokenizer, seed: int, model_class: type = CLIPTextModel, **config: object
) -> torch.nn.Module:
    """Two-layer CLIP text model of width 32 for that tokenizer."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "projection_dim": WIDTH}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": _CLIP_TOKENS}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return randomise(model_class(CLIPTextConfig(vocab_size=len(tokenizer), **(sizes | ids | config))), seed)


def t5_tokenizer(max_length: int = 512) -> T5Tokenizer:
    """T5's own tokenizer class over printable ASCII; other characters are one unknown token."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.printable if not letter.isspace()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_length)


def t5_encoder(tokenizer: T5Tokenizer, seed: int, d_model: int = WIDTH) -> T5EncoderModel:
    """Two-layer T5 encoder of width `d_model` for that tokenizer."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=d_model,
        d_ff=2 * d_model,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return randomise(T5EncoderModel(config), seed)
