"""Engines with optimizations, from command-line words to images and a record of what really ran."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from optimization_batches import FOX, words_of
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.models.resolve import resolve_model


@dataclass(frozen=True)
class Ran:
    """Images of each batch, the record of `effects`, and the FLOPs of all batches."""

    images: list[torch.Tensor]
    effects: dict[str, Any]
    flops: int


@pytest.fixture(scope="module")
def cluster():
    """One process with a process group, as xfuser wants it; other tests of this process start their own."""
    torch.set_num_threads(1)
    one = Cluster.start(Rank(), "cpu")
    yield one
    one.close()


@pytest.fixture(scope="session")
def plan_of():
    """Call with a model and command-line words."""

    def plan_of(model, *words, device="cpu", world=1):
        args = parse_args(words_of(model, list(words)))
        return make_plan(args, resolve_model(model), world, device, "a device")

    return plan_of


@pytest.fixture(scope="module")
def run(cluster, plan_of):
    """Call with a model and command-line words: loads, generates each batch, says what happened."""

    def run(model, *words, batches=(FOX,), steps=8, counted=True, dtype="float32"):
        words = (*words, "--workload.inference_steps", str(steps), "--workload.dtype", dtype)
        words = (*words, "--workload.batch_size", str(max(len(batch.prompts) for batch in batches)))
        engine = load_engine(plan_of(model, *words), cluster)
        with FlopCounterMode(display=False) if counted else torch.no_grad() as counter:
            images = [engine.generate(batch).images for batch in batches]
        flops = counter.get_total_flops() if counted else 0
        ran = Ran(images, engine.effects(0), flops)
        engine.close()
        return ran

    return run


@pytest.fixture(scope="session")
def kept():
    """Images that `exact` has made, by set-up."""
    return {}


@pytest.fixture(scope="module")
def exact(run, kept):
    """The same without any optimization, once a model and number of steps."""

    def exact(model, engine="diffusers", steps=8, batches=(FOX,), dtype="float32"):
        key = (model, engine, steps, batches, dtype)
        if key not in kept:
            kept[key] = run(model, "--engine", engine, steps=steps, batches=batches, dtype=dtype)
        return kept[key]

    return exact
