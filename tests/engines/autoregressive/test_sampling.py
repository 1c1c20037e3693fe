"""Tokens are drawn by top-k and top-p as published, each image by numbers of its own."""

from __future__ import annotations

import random

import pytest
import torch

from mlenergy.diffusion.engines.autoregressive.sampling import draw_tokens, guide, uniform_numbers

SCHEDULE = ((1, 1), (2, 2))


def plainly(logits: list[float], number: float, top_k: int, top_p: float) -> int:
    """One draw, written as the definition says: no sort of tensors, no cumulative sum."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[:top_k]
    weights = [float(torch.tensor(logits[i]).double().exp()) for i in order]
    masses = [weight / sum(weights) for weight in weights]
    kept: list[int] = []
    while sum(masses[: len(kept)]) < top_p and len(kept) < len(order):
        kept.append(order[len(kept)])
    rest = number * sum(masses[: len(kept)])
    for index, mass in zip(kept, masses, strict=False):
        if rest < mass:
            return index
        rest -= mass
    return kept[-1]


@pytest.mark.parametrize("number", [0.0, 0.3, 0.7, 0.999999])
def test_one_candidate_is_the_most_likely_one_whatever_the_number(number):
    logits, numbers = torch.tensor([[0.1, 2.0, -1.0]]), torch.tensor([number])
    assert draw_tokens(logits, numbers, 1, 1.0).tolist() == [1]
    assert draw_tokens(logits, numbers, 3, 1e-9).tolist() == [1], "at least one token is kept"


def test_probabilities_are_intervals_of_the_number():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(5, 3)
    numbers = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81])
    assert draw_tokens(logits, numbers, 3, 1.0).tolist() == [1, 1, 2, 2, 0]
    # Without the last one the other two share its probability: 5/8 and 3/8.
    assert draw_tokens(logits, numbers, 2, 1.0).tolist() == [1, 1, 1, 2, 2]
    assert draw_tokens(logits, numbers, 3, 0.79).tolist() == [1, 1, 1, 2, 2]
    assert draw_tokens(logits, numbers, 3, 0.49).tolist() == [1] * 5


def test_draws_are_those_of_the_definition():
    chance = random.Random(7)
    for _ in range(300):
        logits = [chance.gauss(0, 2) for _ in range(chance.randint(1, 12))]
        number, top_k, top_p = chance.random(), chance.randint(1, 14), chance.uniform(0.05, 1)
        drawn = draw_tokens(torch.tensor([logits]), torch.tensor([number]), top_k, top_p)
        assert drawn.item() == plainly(logits, number, top_k, top_p), (logits, number, top_k, top_p)


def test_bits_are_drawn_like_indices():
    logits = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    numbers = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))
    drawn = draw_tokens(logits, numbers, 900, 1.0)
    likely = logits.argmax(-1)
    assert torch.equal(drawn, torch.where(numbers < logits.softmax(-1).amax(-1), likely, 1 - likely))


def test_guidance_goes_from_the_unconditional_half_past_the_conditional_one():
    logits = torch.tensor([[1.0], [3.0], [0.0], [1.0]])  # two images, conditional rows first
    assert guide(logits, 1.0).tolist() == [[1.0], [3.0]]
    assert guide(logits, 5.0).tolist() == [[5.0], [11.0]]  # (1 + 4) c - 4 u


def test_numbers_are_of_an_images_seed_alone():
    both = uniform_numbers((5, 6), SCHEDULE, 1)
    assert both.shape == (2, 5)
    assert torch.equal(both[1:], uniform_numbers((6,), SCHEDULE, 1))
    assert not torch.equal(both[0], both[1])
    assert uniform_numbers((5,), SCHEDULE, 7).shape == (1, 5, 7)
