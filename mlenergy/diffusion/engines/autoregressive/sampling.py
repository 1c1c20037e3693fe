"""Next-scale sampling: the loop over the scales, guidance, and the draw of tokens by top-k and top-p.

Every image has random numbers of its own, drawn from its seed before the loop: one number a draw in (0, 1),
by which a token is found in the cumulative distribution. So an image depends neither on its batch nor on the
device's generator, nothing in the loop waits for the host, and all of it may be recorded as CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.models.next_scale import Schedule


class NextScaleModel(Protocol):
    """A model that predicts token maps h_1 … h_K, coarse to fine, as the sampling loop sees it.

    Rows: B images; under guidance the transformer computes 2B rows, conditional ones first.

    components: name -> module, with the names of the family's stages: the condition's encoder
        (class_embedding, text_encoder), transformer, vae. The hooks of the stage times are on their forwards:
        `condition` calls the encoder, `logits` calls the transformer exactly once, `decode` calls the VAE's
        parts `post_quant_conv` (where it has one) and `decoder`.
    draws: random numbers a token needs: 1 for an index into a codebook, d for d bits.
    """

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module."""
        ...

    @property
    def draws(self) -> int:
        """Random numbers a token."""
        ...

    def begin(self, batch: Batch, schedule: Schedule, guided: bool) -> Any:
        """State of one generation: the encoded conditions, the key-value cache, the first input.

        batch: the images of this rank alone.
        schedule: rows and columns of each scale's map.
        guided: compute the unconditional half, too.
        """
        ...

    def logits(self, state: Any, scale: int) -> torch.Tensor:
        """One forward over all tokens of a scale: float32, (rows, tokens, V) or (rows, tokens, draws, V)."""
        ...

    def accept(self, state: Any, scale: int, tokens: torch.Tensor) -> None:
        """Add the tokens (B, tokens, ...) of a scale to the latent map, and make the next scale's input."""
        ...

    def decode(self, state: Any) -> torch.Tensor:
        """Images from the final latent map: (B, 3, height, width) in [0, 1]."""
        ...

    def guidance_weight(self, scale: int, scales: int, guidance_scale: float) -> float:
        """w of logits = unconditional + w (conditional - unconditional) at a scale counted from 0."""
        ...


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn.

    guidance_scale: None: no guidance, and no second half of the batch.
    top_k: most likely tokens that are drawn from; at least one is.
    top_p: the fewest most likely tokens, of these, whose probabilities make this sum.
    """

    guidance_scale: float | None
    top_k: int
    top_p: float


def generate(
    model: NextScaleModel, batch: Batch, schedule: Schedule, options: SamplingOptions, device: torch.device
) -> torch.Tensor:
    """Images (B, 3, height, width) in [0, 1] of one batch."""
    scale_w = options.guidance_scale
    uniforms = uniform_numbers(batch.seeds, schedule, model.draws).to(device, non_blocking=True)
    state = model.begin(batch, schedule, guided=scale_w is not None)
    first = 0
    for scale, (rows, columns) in enumerate(schedule):
        logits = model.logits(state, scale)
        if scale_w is not None:
            logits = guide(logits, model.guidance_weight(scale, len(schedule), scale_w))
        drawn = uniforms[:, first : first + rows * columns]
        model.accept(state, scale, draw_tokens(logits, drawn, options.top_k, options.top_p))
        first += rows * columns
    return model.decode(state)


def guide(logits: torch.Tensor, weight: float) -> torch.Tensor:
    """Classifier-free guidance of logits (2B, ...), conditional rows first: (B, ...)."""
    conditional, unconditional = logits.chunk(2)
    return torch.lerp(unconditional, conditional, weight)


def uniform_numbers(seeds: Sequence[int], schedule: Schedule, draws: int) -> torch.Tensor:
    """Random numbers in [0, 1) for all tokens of each image, on the CPU: (B, tokens) or (B, tokens, draws).

    They are the CPU's generator's, so that a seed gives the same ones on every device.
    """
    tokens = sum(rows * columns for rows, columns in schedule)
    shape = (tokens,) if draws == 1 else (tokens, draws)
    rows_of = [torch.rand(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    return torch.stack(rows_of)


def draw_tokens(logits: torch.Tensor, uniforms: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Draw an index for every position.

    Of the `top_k` most likely entries those stay that are needed, from the most likely one on, to make the
    probability `top_p`; the index is where their cumulative probability passes the random number.

    Args:
        logits: float32, (..., V).
        uniforms: in [0, 1), (...).

    Returns:
        int64, (...).
    """
    vocabulary = logits.shape[-1]
    values, order = logits.sort(dim=-1, descending=True, stable=True)
    values, order = values[..., : min(top_k, vocabulary)], order[..., : min(top_k, vocabulary)]
    cumulative = values.softmax(dim=-1).cumsum(dim=-1)
    before = torch.nn.functional.pad(cumulative[..., :-1], (1, 0))  # mass of all more likely entries
    kept = before < top_p
    total = torch.where(kept, cumulative, 0).amax(dim=-1)
    passed = cumulative <= (uniforms * total).unsqueeze(-1)
    # Rounding can put the number past the last entry that was kept.
    last = kept.sum(dim=-1) - 1
    place = torch.minimum((passed & kept).sum(dim=-1), last)
    return order.gather(-1, place.unsqueeze(-1)).squeeze(-1)
