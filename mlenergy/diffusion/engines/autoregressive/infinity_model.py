"""Infinity as the sampling loop sees it: text encoder, transformer and decoder, loaded or random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.infinity_bits import add_codes, codes_of, tokens_of
from mlenergy.diffusion.engines.autoregressive.infinity_checkpoint import load_transformer, load_vae
from mlenergy.diffusion.engines.autoregressive.infinity_text import (
    TextEncoder,
    load_text_encoder,
    random_text_encoder,
)
from mlenergy.diffusion.engines.autoregressive.infinity_transformer import Cache, InfinityTransformer
from mlenergy.diffusion.engines.autoregressive.infinity_vae import InfinityVae
from mlenergy.diffusion.models.infinity import InfinityConfig
from mlenergy.diffusion.models.infinity_sizes import TOKEN_PX, ImageSize, image_size
from mlenergy.diffusion.models.next_scale import Schedule
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.weights.random.fill import Draw, Slot, draw_by_name, draw_in_order, materialise

_TINY_SEED = 91
_PIXEL_GAIN = 0.25  # a trained decoder's pixels lie within their range; at a gain of 1 many would be cut off


@dataclass
class InfinityState:
    """One generation.

    features, visible: (R, L, channels) and (R, L), the texts; conditional rows first.
    x: (R, N, C), input of the next scale.
    image: (B, code bits, rows, columns) in float32, the sum of the codes so far; None before the first scale.
    """

    features: torch.Tensor
    visible: torch.Tensor
    cache: Cache
    x: torch.Tensor
    guided: bool
    image: torch.Tensor | None = None


class InfinityModel:
    """See `sampling.NextScaleModel`.

    negative_prompt: text of the unconditional half; None: the learned text that stands for none.
    """

    def __init__(
        self,
        config: InfinityConfig,
        encode: TextEncoder,
        transformer: InfinityTransformer,
        vae: InfinityVae,
        negative_prompt: str | None = None,
    ) -> None:
        self.config = config
        self.encode, self.transformer, self.vae = encode, transformer, vae
        self.negative_prompt = negative_prompt
        self.components: dict[str, nn.Module] = {
            "text_encoder": encode.encoder,
            "transformer": transformer,
            "vae": vae,
        }
        self.draws = config.bits
        self._caches: dict[tuple[int, int, ImageSize], Cache] = {}

    def begin(self, batch: Batch, schedule: Schedule, guided: bool) -> InfinityState:
        """Encode the prompts; under guidance, the negative prompt or the learned text beside each."""
        images = len(batch.prompts)
        if not guided or self.negative_prompt is None:
            features, visible = self.encode(batch.prompts)
            if guided:
                none = self.transformer.unconditional(images, features.shape[1]).to(features.dtype)
                features, visible = torch.cat([features, none]), torch.cat([visible, visible])
        else:
            features, visible = self.encode((*batch.prompts, *([self.negative_prompt] * images)))
        rows, length = visible.shape
        cache = self._cache(rows, length, _size_of(schedule))
        return InfinityState(features, visible, cache, self.transformer.start(rows), guided)

    def logits(self, state: InfinityState, scale: int) -> torch.Tensor:
        """Logits (R, N, d, 2) of a scale, divided by the temperature."""
        out: torch.Tensor = self.transformer(state.x, state.features, state.visible, state.cache, scale)
        return out / self.config.temperature

    def accept(self, state: InfinityState, scale: int, tokens: torch.Tensor) -> None:
        """Add the codes of a scale's bits (B, N, d) to the image; resized, it is the next scale's input."""
        patch, scales = self.config.patch, state.cache.size.scales
        full = (scales[-1][0] * patch, scales[-1][1] * patch)
        state.image = add_codes(state.image, codes_of(tokens, scales[scale], patch), full)
        if scale + 1 < len(scales):
            x = self.transformer.embed(tokens_of(state.image, scales[scale + 1], patch), scale + 1)
            state.x = x.repeat(2, 1, 1) if state.guided else x

    def decode(self, state: InfinityState) -> torch.Tensor:
        """Images (B, 3, height, width) in [0, 1]."""
        assert state.image is not None
        return self.vae.decode(state.image).add(1).mul(0.5)

    def guidance_weight(self, scale: int, scales: int, guidance_scale: float) -> float:
        """The guidance scale, at every scale."""
        return guidance_scale

    def _cache(self, rows: int, length: int, size: ImageSize) -> Cache:
        """The cache of generations of this shape; of another shape, the one before is freed."""
        key = rows, length, size
        if key not in self._caches:
            self._caches = {key: self.transformer.new_cache(rows, length, size)}
        return self._caches[key]


def build_infinity(plan: Plan, files: Mapping[str, Path] | None, device: torch.device) -> InfinityModel:
    """The plan's model on a device, in its dtype.

    files: checkpoints by component; None: random weights.

    Raises:
        UserError: a checkpoint cannot be read, or holds other keys or shapes.
    """
    assert plan.spec.next_scale is not None and plan.max_sequence_length is not None
    config: InfinityConfig = plan.spec.next_scale.config
    dtype = getattr(torch, plan.dtype)
    transformer, vae = empty_parts(config)
    if files is None:
        tiny = is_tiny(plan.spec.model_id)

        def draw(number: int, name: str) -> Draw:
            return alive(draw_in_order(_TINY_SEED + number) if tiny else draw_by_name(0, name))

        materialise(transformer, device, dtype, draw(0, "transformer"))
        materialise(vae, device, dtype, draw(1, "vae"))
        encode = random_text_encoder(
            config.text, plan.max_sequence_length, device, dtype, draw(2, "text_encoder")
        )
    else:
        load_transformer(transformer, files["transformer"], device, dtype)
        load_vae(vae, files["vae"], device, dtype)
        encode = load_text_encoder(files["text_encoder"], plan.max_sequence_length, device, dtype)
    return InfinityModel(config, encode, transformer, vae, plan.negative_prompt)


def empty_parts(config: InfinityConfig) -> tuple[InfinityTransformer, InfinityVae]:
    """Transformer and decoder on the meta device, in eval mode."""
    with torch.device("meta"):
        transformer, vae = InfinityTransformer(config), InfinityVae(config.vae)
    return transformer.eval(), vae.eval()


def alive(base: Draw) -> Draw:
    """A draw under which every part matters, as it does after training.

    The factors of attention stay near 4, where training starts them; gates and the embedding of scales have
    the size of what they act on.
    """

    def draw(value: torch.Tensor, slot: Slot) -> None:
        base(value, slot)
        if slot.key == "scale_mul_1H11":
            value.mul_(0.1).add_(math.log(4.0))
        elif slot.key == "ada_gss":
            value.mul_(math.sqrt(value.shape[-1]))
        elif slot.name.endswith("conv_out.weight"):
            value.mul_(_PIXEL_GAIN)
        elif slot.key in ("pos_start", "cfg_uncond") or slot.name == "lvl_embed.weight":
            value.mul_(math.sqrt(value.shape[-1]))  # entries of variance 1, not vectors

    return draw


def _size_of(schedule: Schedule) -> ImageSize:
    rows, columns = schedule[-1]
    size = image_size(rows * TOKEN_PX, columns * TOKEN_PX)
    assert size is not None and size.scales == tuple(schedule)
    return size
