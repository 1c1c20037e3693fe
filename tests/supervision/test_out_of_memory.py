"""The line of an out-of-memory failure beside the allocator's own message."""

import subprocess
import time
from dataclasses import replace

import pytest
from result_samples import make_plan

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.memory import estimate_memory
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.supervision.estimate import estimate_of
from mlenergy.diffusion.supervision.out_of_memory import OutOfMemory

GIB = 1 << 30
SMALL_GPU = {"kind": "gpu", "tried": "2.00 GiB", "total_bytes": 24 * GIB}


def failure(plan, figures=SMALL_GPU):
    return OutOfMemory("out of memory on NVIDIA H200 of rank 0 while measuring: no room", figures, plan)


def test_the_line_compares_the_estimate_with_the_gpu():
    plan = make_plan(parallel=Parallelism(), batch_size=1)
    error, memory = failure(plan), estimate_memory(plan)
    assert "estimated" not in str(error)
    error.add_estimate(limit_s=30)
    assert (
        f"the plan estimated about {memory.peak_bytes / GIB:.3g} GiB a rank, "
        f"{memory.total_parameter_bytes / GIB:.3g} GiB of it weights, most of the rest in "
        f"{memory.peak_stage}, and this GPU has 24 GiB; what helps: " in str(error)
    )
    assert error.record() == {
        **SMALL_GPU,
        "estimated_bytes": memory.peak_bytes,
        "estimated_parameter_bytes": memory.total_parameter_bytes,
        "estimated_stage": memory.peak_stage,
        "estimate_leaves_out": [],
        "estimate_reason": None,
    }


def test_knobs_are_named_where_they_would_help_and_work():
    weights = failure(make_plan(parallel=Parallelism()))  # 31 of 37 GiB
    weights.add_estimate(limit_s=30)
    assert "--enable_model_cpu_offload" in str(weights)
    assert "--quantization int8-weight-only" in str(weights)
    host = {"kind": "host", "total_bytes": GIB, "limit_bytes": None}
    activations = failure(make_plan(device="cpu", batch_size=64), host)
    activations.add_estimate(limit_s=30)
    assert "and this host has 1 GiB; what helps" in str(activations)
    assert "--vae_slicing" in str(activations)
    assert "--quantization" not in str(activations)
    # Offloading takes one process, slicing several images.
    assert "offload" not in str(failure(make_plan()))
    assert "--vae_slicing" not in str(failure(make_plan(batch_size=1)))


def test_what_the_estimate_leaves_out_is_said():
    known = {"vae_tiling": True, "vae_slicing": True}
    optimizations = Optimizations(quantization="int8-weight-only", fp8_t5_encoder=True, **known)
    error = failure(make_plan(optimizations=optimizations))
    error.add_estimate(limit_s=30)
    assert "(without what --quantization, --use_fp8_t5_encoder changes)" in str(error)
    assert error.record()["estimate_leaves_out"] == ["--quantization", "--use_fp8_t5_encoder"]


def unknown_model():
    return make_plan(spec=replace(BY_ID["tiny/flux"], model_id="someone/unknown"))


@pytest.mark.parametrize(
    ("plan", "figures", "reason"),
    [
        (unknown_model(), SMALL_GPU, "someone/unknown"),
        (
            make_plan(),
            {"kind": "host"},
            "estimates are of a GPU's memory, and it was the host's that ran out",
        ),
    ],
)
def test_without_an_estimate_the_reason_is_given(plan, figures, reason):
    error = failure(plan, figures)
    error.add_estimate(limit_s=30)
    assert "what the plan needs could not be estimated (" in str(error)
    assert reason in str(error)
    assert error.record()["estimated_bytes"] is None
    assert reason in error.record()["estimate_reason"]


class Slow:
    """Taken for a plan, it makes the child that estimates wait for a child of its own."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __reduce__(self):
        return subprocess.run, (["sleep", self.seconds],)


def test_an_estimate_that_takes_long_is_given_up_and_leaves_no_process():
    seconds = f"60.{time.monotonic_ns()}"
    begin = time.monotonic()
    assert estimate_of(Slow(seconds), limit_s=0.5).estimate_reason == "it took more than 0.5 s"
    assert time.monotonic() - begin < 20
    assert seconds not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def advice(plan):
    error = failure(plan)
    error.add_estimate(limit_s=30)
    return str(error).partition("what helps: ")[2]


def test_exact_advice_comes_before_lossy_and_none_is_for_what_is_in_use():
    plan = make_plan(parallel=Parallelism())
    words = advice(plan)
    assert 0 < words.index("--enable_model_cpu_offload") < words.index("--quantization int8-weight-only")
    assert "--enable_model_cpu_offload (lossy)" not in words and "int8-weight-only (lossy)" in words
    in_use = replace(plan, optimizations=Optimizations(offload="sequential"))
    assert "cpu_offload" not in advice(in_use)
