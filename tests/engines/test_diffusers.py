"""The diffusers engine on one rank: real pipelines, and each seed makes its own image."""

from dataclasses import replace

import pytest
import torch

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine
from mlenergy.diffusion.models.resolve import resolve_model

CLUSTER = Cluster(Rank(), torch.device("cpu"), None)


def plan_for(model="tiny/flux", **work):
    sizes = {"height": 64, "width": 96, "inference_steps": 2, "dtype": "float32", "batch_size": 2}
    workload = TextToImage(model_id=model, dataset="bundled", **(sizes | work))
    args = BenchmarkArgs(workload, engine="diffusers", device="cpu")
    return make_plan(args, resolve_model(model), 1, "cpu", "cpu")


@pytest.fixture(scope="module")
def engine():
    return DiffusersEngine.load(plan_for(), CLUSTER)


def test_images_are_floats_in_unit_range_in_prompt_order(engine):
    both = engine.generate(Batch(("a cat", "a dog"), (7, 8)))
    assert both.first_row == 0
    assert both.images.shape == (2, 3, 64, 96) and both.images.dtype == torch.float32
    assert 0 <= both.images.min() < both.images.max() <= 1
    alone = engine.generate(Batch(("a dog",), (8,)))
    assert (alone.images[0] - both.images[1]).abs().max() < 5e-5  # batch size rounds differently
    assert (both.images[0] - both.images[1]).abs().max() > 0.1


def test_the_seed_decides_the_noise_and_nothing_else_does(engine):
    first = engine.generate(Batch(("a cat",), (7,))).images
    torch.manual_seed(99)
    assert torch.equal(first, engine.generate(Batch(("a cat",), (7,))).images)
    assert (first - engine.generate(Batch(("a cat",), (8,))).images).abs().max() > 0.1


def test_guidance_steps_and_text_length_reach_the_pipeline(engine):
    batch = Batch(("a cat that sits on a mat and looks at the moon",), (7,))
    base = engine.generate(batch).images
    for change in ({"guidance_scale": 9.0}, {"steps": 3}, {"max_sequence_length": 8}):
        engine.plan, kept = replace(engine.plan, **change), engine.plan
        assert not torch.equal(base, engine.generate(batch).images), change
        engine.plan = kept


def test_components_are_called_once_or_once_a_step(engine):
    # A pipeline calls vae.decode, which is no forward; the decoder inside of it is called as one.
    parts = {**engine.components(), "vae": engine.components()["vae"].decoder}
    calls = dict.fromkeys(parts, 0)

    def count(name):
        return lambda *_: calls.__setitem__(name, calls[name] + 1)

    hooks = [module.register_forward_hook(count(name)) for name, module in parts.items()]
    engine.generate(Batch(("a cat",), (7,)))
    for hook in hooks:
        hook.remove()
    assert calls == {"text_encoder": 1, "text_encoder_2": 1, "transformer": 2, "vae": 1}


def test_report_says_what_was_loaded(engine):
    assert engine.report.load_s > 0
    facts = engine.report.facts
    assert facts["pipeline_class"] == "FluxPipeline" and facts["weights_commit"] is None
    assert facts["host_rss_peak_bytes"] > 50e6
