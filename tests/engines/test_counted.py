"""FLOPs counted as they run are those that the architecture's polynomials predict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from parity_reference import Wanted, reference_images

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.engines.counted import flops_as_run, is_counted_as_it_runs
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import STAGES

STEPS = 2


def plan_of(model, images):
    words = ["--workload.height", "64", "--workload.width", "96", "--workload.inference_steps", str(STEPS)]
    line = ["workload:t2i", "--workload.model_id", model, "--workload.batch_size", str(images), *words]
    return make_plan(parse_args(line, "test"), resolve_model(model), 1, "cpu", "some CPU")


def _keep(output, call, *args, **options):
    output.append(call(*args, **options))


# Heads that share keys and linear attention; CPU attention with a mask; convolutions and CLIP.
@pytest.mark.parametrize("model", ["tiny/sana", "tiny/pixart-sigma", "tiny/sdxl"])
@pytest.mark.parametrize("images", [1, 2])
def test_what_is_counted_is_what_is_predicted(model, images):
    plan, found = plan_of(model, images), {}
    wanted = Wanted(model, ("a fox",) * images, tuple(range(images)), 64, 96, STEPS)

    def count(pipeline):
        parts = {
            name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)
        }
        call = type(pipeline).__call__

        def counted(self, *args, **options):
            output = []
            generate = partial(_keep, output, call, self, *args, **options)
            found.update(flops_as_run(parts, plan.spec.family.stages, generate))
            return output[0]

        pipeline.__class__ = type("Counted", (type(pipeline),), {"__call__": counted})

    reference_images(wanted, count)
    known = flops_of(plan)
    assert found.pop("reason") is None and set(found) == set(STAGES)
    assert found["text_encode"] == pytest.approx(known.text_encode, rel=1e-6)
    assert found["denoise"] == pytest.approx(STEPS * known.denoise_step, rel=1e-6)
    # Sana's decoder attends to its smallest maps in another order, of other FLOPs, where they are very small.
    assert found["vae_decode"] == pytest.approx(known.vae_decode, rel=1e-4 if model == "tiny/sana" else 1e-6)


def test_an_operator_without_a_formula_is_told_and_nothing_is_counted():
    @torch.library.custom_op("mlenergy_test::fast_attention", mutates_args=())
    def fast_attention(query: torch.Tensor) -> torch.Tensor:
        return query.clone()

    found = flops_as_run({}, {}, lambda: fast_attention(torch.ones(2)))
    assert found["text_encode"] is found["denoise"] is found["vae_decode"] is None
    assert "mlenergy_test" in found["reason"]


@pytest.mark.parametrize(
    ("model", "degrees", "counted"),
    [
        ("tiny/lumina2", Parallelism(), True),
        ("tiny/lumina2", Parallelism(data=2), True),
        ("tiny/lumina2", Parallelism(data=2, cfg=2), False),
        ("tiny/sdxl", Parallelism(), False),
    ],
)
def test_only_what_no_file_predicts_is_counted_and_no_shared_image(model, degrees, counted):
    assert is_counted_as_it_runs(replace(plan_of(model, 1), parallel=degrees)) is counted
