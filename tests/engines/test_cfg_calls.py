"""Guidance's two calls on two ranks: each rank makes its one, and both have both outputs."""

from __future__ import annotations

import threading

import pytest
import torch

from mlenergy.diffusion.engines.diffusers import cfg_calls


class Denoiser(torch.nn.Module):
    """Multiplies what it is given."""

    def forward(self, hidden_states, factor, whole=True):
        output = hidden_states * factor
        return (output,) if whole else output


class TwoRanks:
    """Stands for torch.distributed: two threads, each a rank of the group."""

    def __init__(self):
        self.here = threading.local()
        self.meeting = threading.Barrier(2, timeout=10)
        self.parts = [None, None]

    def get_rank(self, _group):
        return self.here.rank

    def all_gather_into_tensor(self, whole, part, group):
        self.parts[self.here.rank] = part.clone()
        self.meeting.wait()
        whole.copy_(torch.cat(self.parts))
        self.meeting.wait()


@pytest.fixture
def on_both_ranks(monkeypatch):
    """Runs a function of the rank on two threads; their results in order."""
    ranks = TwoRanks()
    monkeypatch.setattr(cfg_calls, "dist", ranks)

    def run(work):
        found = [None, None]

        def one(rank):
            ranks.here.rank = rank
            try:
                found[rank] = work(rank)
            except Exception as error:
                found[rank] = error
                ranks.meeting.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run


def shared():
    denoiser, seen = Denoiser(), []
    cfg_calls.share_guidance_calls(denoiser, None)
    denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["factor"]), with_kwargs=True
    )
    return denoiser, seen


def test_each_rank_makes_one_call_a_step_and_has_both_outputs(on_both_ranks):
    def steps(_rank):
        denoiser, seen = shared()
        assert isinstance(denoiser, Denoiser) and type(denoiser).__name__ == "Denoiser"
        outputs = []
        for step in (1.0, 2.0):
            latents = torch.full((1, 4, 2), step)
            with_prompt = denoiser(hidden_states=latents, factor=3.0)[0][:, :3]  # a view, as klein takes
            without = denoiser(hidden_states=latents, factor=5.0)[0]
            outputs += [with_prompt[0, 0, 0].item(), without[0, 0, 0].item()]
        return outputs, seen

    assert on_both_ranks(steps) == [([3, 5, 6, 10], [3, 3]), ([3, 5, 6, 10], [5, 5])]


def test_outputs_that_the_other_rank_cannot_know_are_refused(on_both_ranks):
    def wrong(_rank):
        denoiser, _ = shared()
        denoiser(hidden_states=torch.ones(1, 4), factor=torch.ones(2, 4))
        return denoiser(hidden_states=torch.ones(1, 4), factor=torch.ones(2, 4))

    assert all("cannot know its shape" in str(error) for error in on_both_ranks(wrong))

    def bare(_rank):
        denoiser, _ = shared()
        return [denoiser(hidden_states=torch.ones(1), factor=1.0, whole=False) for _ in (0, 1)]

    assert all("must ask for a tuple" in str(error) for error in on_both_ranks(bare))


def test_two_calls_of_different_shape_are_no_guidance(on_both_ranks):
    def odd(_rank):
        denoiser, _ = shared()
        denoiser(hidden_states=torch.ones(1), factor=1.0)
        return denoiser(hidden_states=torch.ones(2), factor=1.0)

    assert all("differ in shape" in str(error) for error in on_both_ranks(odd))
