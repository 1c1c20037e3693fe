"""Everything random of a training, as a function of the seed and the number of a sample.

So nothing depends on how the samples are shared out over processes, and a training that goes on from a
checkpoint draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Draw:
    """The random part of one sample.

    latent_noise: (channels, height, width) of the latents, to sample the VAE's distribution.
    noise: of the same shape, that is added to the latents.
    """

    timestep: int
    drops_caption: bool
    latent_noise: torch.Tensor
    noise: torch.Tensor


def image_of(seed: int, sample: int, images: int) -> int:
    """Index of the image that a sample shows: each epoch shows every image once, in an order of its own."""
    epoch, place = divmod(sample, images)
    return _order(seed, epoch, images)[place]


def draw(seed: int, sample: int, shape: tuple[int, ...], timesteps: int, caption_dropout: float) -> Draw:
    """The random part of a sample, the same on every device: generators are the CPU's."""
    generator = torch.Generator("cpu").manual_seed(_number(f"{seed}:{sample}"))
    timestep = int(torch.randint(timesteps, (), generator=generator))
    share = float(torch.rand((), generator=generator))
    latent_noise = torch.randn(shape, generator=generator)
    return Draw(timestep, share < caption_dropout, latent_noise, torch.randn(shape, generator=generator))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, images: int) -> tuple[int, ...]:
    order = list(range(images))
    random.Random(_number(f"order:{seed}:{epoch}")).shuffle(order)
    return tuple(order)


def _number(text: str) -> int:
    """A seed of 63 bits, which torch's generators take."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
