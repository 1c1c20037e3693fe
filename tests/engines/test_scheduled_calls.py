"""Calls that a scheduler makes of the steps, for every kind that models bring or an option asks for."""

from types import SimpleNamespace

import diffusers
import pytest

from mlenergy.diffusion.engines.call import scheduled_calls
from mlenergy.diffusion.engines.optimizations.schedulers import replace_scheduler, scheduler_record

WAN = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SHIFTED = {"use_dynamic_shifting": True, "base_image_seq_len": 256, "max_image_seq_len": 4096}


@pytest.mark.parametrize(
    ("scheduler", "calls"),
    [
        (diffusers.PNDMScheduler(skip_prk_steps=True), 21),  # SD 1.5's own
        (diffusers.HeunDiscreteScheduler(), 39),  # second order: all steps but the last take two
        (diffusers.EulerDiscreteScheduler(), 20),  # SDXL's
        (diffusers.EulerAncestralDiscreteScheduler(), 20),  # SDXL-turbo's
        (diffusers.DDPMScheduler(), 20),  # HunyuanDiT's
        (diffusers.DPMSolverMultistepScheduler(), 20),  # PixArt's
        (diffusers.LCMScheduler(), 20),
        (diffusers.UniPCMultistepScheduler(**WAN), 20),
        (diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), 20),  # SD3's
        (diffusers.FlowMatchEulerDiscreteScheduler(**SHIFTED), 20),  # FLUX's
        (SimpleNamespace(module=diffusers.PNDMScheduler(skip_prk_steps=True)), 21),  # in xfuser's wrapper
        (SimpleNamespace(), None),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, int) else str(part),
)
def test_a_scheduler_tells_how_often_the_denoiser_is_called(scheduler, calls):
    assert scheduled_calls(scheduler, 20) == calls


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "euler"])
@pytest.mark.parametrize("own", [{"shift": 3.0}, SHIFTED])
def test_flow_solvers_that_an_option_asks_for_make_one_call_a_step(name, own):
    pipeline = SimpleNamespace(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**own))
    replace_scheduler(pipeline, name)
    assert scheduled_calls(pipeline.scheduler, 20) == 20


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "euler"])
def test_another_solver_of_wan_s_flow_keeps_its_shift(name):
    pipeline = SimpleNamespace(scheduler=diffusers.UniPCMultistepScheduler(**WAN))
    replace_scheduler(pipeline, name)
    assert scheduled_calls(pipeline.scheduler, 20) == 20
    assert scheduler_record(pipeline.scheduler)["prediction_type"] == "flow_prediction"
    config = pipeline.scheduler.config
    assert config.get("flow_shift", config.get("shift")) == 3.0


def test_a_pipeline_that_has_set_other_steps_changes_no_answer():
    scheduler = diffusers.EulerDiscreteScheduler()
    scheduler.set_timesteps(7)
    assert scheduled_calls(scheduler, 20) == 20 and len(scheduler.timesteps) == 7
