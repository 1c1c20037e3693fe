"""VAR as the sampling loop sees it: class embedding, transformer and VQ-VAE, loaded or random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.files import load_strictly, read_state
from mlenergy.diffusion.engines.autoregressive.var_transformer import LayerCache, VarTransformer
from mlenergy.diffusion.engines.autoregressive.var_vae import VarVae, training_parts
from mlenergy.diffusion.models.next_scale import Schedule
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.models.var import VarConfig
from mlenergy.diffusion.weights.random.fill import Draw, Slot, draw_by_name, draw_in_order, materialise

CLASS_EMBEDDING = "class_emb"  # the checkpoint's key; here it is a component of its own
# Buffers of training that a checkpoint may hold: level of each token, mask, bias of keys, codebook's use.
TRANSFORMER_BUFFERS = ("lvl_1L", "attn_bias_for_masking", r"blocks\.\d+\.attn\.zero_k_bias")
VAE_BUFFERS = (r"quantize\.ema_vocab_hit_SV",)

_TINY_SEED = 81


@dataclass
class VarState:
    """One generation.

    condition: class vectors (R, D), conditional rows first.
    cache: keys and values of the scales so far.
    x: input (R, n, D) of the next scale.
    total: the latent map f̂, (B, C, h, w).
    """

    condition: torch.Tensor
    cache: list[LayerCache]
    x: torch.Tensor
    total: torch.Tensor
    guided: bool


class VarModel:
    """See `sampling.NextScaleModel`."""

    draws = 1

    def __init__(self, config: VarConfig, parts: Mapping[str, nn.Module]) -> None:
        self.config = config
        self.components: dict[str, nn.Module] = dict(parts)
        embedding, transformer, vae = (parts[name] for name in ("class_embedding", "transformer", "vae"))
        assert isinstance(embedding, nn.Embedding)
        assert isinstance(transformer, VarTransformer) and isinstance(vae, VarVae)
        self.class_embedding, self.transformer, self.vae = embedding, transformer, vae
        self._held: tuple[int, list[LayerCache]] | None = None

    def begin(self, batch: Batch, schedule: Schedule, guided: bool) -> VarState:
        """Embed the classes and, under guidance, "none" for each image beside them."""
        config, weight = self.config, self.class_embedding.weight
        labels = [*batch.class_ids, *([config.classes] * len(batch.class_ids) if guided else [])]
        ids = torch.tensor(labels, device="cpu").to(weight.device, non_blocking=True)
        condition = self.class_embedding(ids)
        side, images = schedule[-1][0], len(batch.class_ids)
        total = weight.new_zeros((images, config.vae.latent_channels, side, side))
        cache = self._cache(len(labels))
        return VarState(condition, cache, self.transformer.start(condition), total, guided)

    def _cache(self, rows: int) -> list[LayerCache]:
        """Room for keys and values: the same in every generation of `rows` rows, as CUDA graphs need it."""
        if self._held is None or self._held[0] != rows:
            weight = self.class_embedding.weight
            self._held = rows, self.transformer.new_cache(rows, weight.device, weight.dtype)
        return self._held[1]

    def logits(self, state: VarState, scale: int) -> torch.Tensor:
        """Logits (R, n, V) of a scale."""
        out: torch.Tensor = self.transformer(state.x, state.condition, state.cache, scale)
        return out

    def accept(self, state: VarState, scale: int, tokens: torch.Tensor) -> None:
        """Add a scale's tokens (B, n) to the latent map; resize it (area) to be the next scale's input."""
        sides = self.config.sides
        state.total = self.vae.quantize.accumulate(state.total, tokens, sides[scale], scale, len(sides))
        if scale + 1 == len(sides):
            return
        side = sides[scale + 1]
        features = functional.interpolate(state.total, size=(side, side), mode="area")
        x = self.transformer.embed(features.flatten(2).transpose(1, 2), scale + 1)
        state.x = x.repeat(2, 1, 1) if state.guided else x

    def decode(self, state: VarState) -> torch.Tensor:
        """Images (B, 3, height, width) in [0, 1]."""
        return self.vae.decode(state.total).add(1).mul(0.5)

    def guidance_weight(self, scale: int, scales: int, guidance_scale: float) -> float:
        """1 + t, t growing linearly from 0 at the first scale to the guidance scale at the last."""
        return 1 + guidance_scale * scale / (scales - 1)


def build_var(plan: Plan, files: Mapping[str, Path] | None, device: torch.device) -> VarModel:
    """The plan's model on a device, in its dtype.

    files: checkpoints by component; None: random weights.

    Raises:
        UserError: a checkpoint cannot be read, or holds other keys or shapes.
    """
    assert plan.spec.next_scale is not None
    config: VarConfig = plan.spec.next_scale.config
    dtype = getattr(torch, plan.dtype)
    parts = empty_parts(config)
    if files is None:
        tiny = is_tiny(plan.spec.model_id)
        for number, (name, part) in enumerate(parts.items()):
            base = draw_in_order(_TINY_SEED + number) if tiny else draw_by_name(0, name)
            materialise(part, device, dtype, _alive(base))
        return VarModel(config, parts)
    path = files["transformer"]
    state = read_state(path)
    both = nn.ModuleDict({CLASS_EMBEDDING: parts["class_embedding"]})
    of_class = {key: value for key, value in state.items() if key.startswith(f"{CLASS_EMBEDDING}.")}
    rest = {key: value for key, value in state.items() if key not in of_class}
    load_strictly(both, of_class, path, device=device, dtype=dtype)
    load_strictly(
        parts["transformer"], rest, path, device=device, dtype=dtype, not_loaded=TRANSFORMER_BUFFERS
    )
    path = files["vae"]
    known = training_parts(config.vae).items()
    load_strictly(
        *(parts["vae"], read_state(path), path),
        device=device,
        dtype=dtype,
        not_loaded=VAE_BUFFERS,
        also_known=known,
    )
    return VarModel(config, parts)


def empty_parts(config: VarConfig) -> dict[str, nn.Module]:
    """Component -> module on the meta device, in eval mode."""
    with torch.device("meta"):
        parts = {
            "class_embedding": nn.Embedding(config.classes + 1, config.width),
            "transformer": VarTransformer(config),
            "vae": VarVae(config.vae),
        }
    return {name: part.eval() for name, part in parts.items()}


def _alive(base: Draw) -> Draw:
    """A draw under which every part matters, as it does after training.

    The factors of attention stay near 4, where training starts them, and the gates of the adaptive norms are
    not near 0, where blocks would do nothing.
    """

    def draw(value: torch.Tensor, slot: Slot) -> None:
        base(value, slot)
        if slot.key == "scale_mul_1H11":
            value.mul_(0.1).add_(math.log(4.0))
        elif slot.name.endswith("ada_lin.1.bias") or slot.key == "ada_gss":
            value.mul_(5.0)
        elif isinstance(slot.owner, nn.Embedding):
            value.mul_(math.sqrt(value.shape[1]))  # entries of variance 1, not vectors

    return draw
