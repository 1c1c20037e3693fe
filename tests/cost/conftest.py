"""Plans without a command line, and what torch's allocator says of a call."""

import forked
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.models.resolve import resolve_model


@pytest.fixture(autouse=True)
def counting_is_forked(monkeypatch):
    """The process that counts imports torch and diffusers."""
    monkeypatch.setattr(costs, "subprocess", forked.AS_SUBPROCESS)


@pytest.fixture
def plan_of():
    def build(model_id, *options, world_size=1, device_name="NVIDIA H200", **workload):
        words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
        spec = resolve_model(model_id)
        workload_name = "text-to-video" if spec.family.makes_video else "text-to-image"
        line = [*options, f"workload:{workload_name}", "--workload.model_id", model_id, *words]
        return make_plan(parse_args(line, "test"), spec, world_size, "cuda", device_name)

    return build


@pytest.fixture
def allocated_peak_bytes():
    """Largest sum of bytes that a call had allocated at once, by torch's profiler of the CPU's allocator."""

    def measure(call):
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            call()
        events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak

    return measure
