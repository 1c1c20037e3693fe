"""Stage times by hooks, on components that sleep for a known time."""

from __future__ import annotations

import pytest
import torch

from mlenergy.diffusion.measure.stages import StageProbe, stage_times
from mlenergy.diffusion.models.families import FLUX

CPU = torch.device("cpu")
# A busy machine may take a core away between a hook and the forward: compare with what the
# components themselves saw, within a scheduler's slice.
SLICE_S = 0.03


@pytest.fixture
def run(batch, measured):
    """Measure one window of a pipeline and give its stages and duration."""

    def run(tiny, steps=3, calls=None):
        probe = StageProbe(tiny.components, FLUX.stages, steps, CPU, calls)
        found, _ = measured(tiny.generate, [], [batch(1)], probe=probe)
        (iteration,) = found.iterations
        return iteration.stages, iteration.duration_s, found.warnings

    return run


def test_every_stage_has_its_time_and_they_sum_to_the_window(pipeline, run):
    tiny = pipeline(text_s=0.2, step_s=0.3, decode_s=0.4)
    stages, duration_s, warnings = run(tiny)
    vae = tiny.components["vae"]
    assert stages.text_encode_s == pytest.approx(sum(tiny.components["text_encoder"].spent_s), abs=SLICE_S)
    assert stages.denoise_s == pytest.approx(sum(tiny.components["transformer"].spent_s), abs=SLICE_S)
    spent_s = sum(vae.post_quant_conv.spent_s) + sum(vae.decoder.spent_s)
    assert stages.vae_decode_s == pytest.approx(spent_s, abs=SLICE_S)
    known_s = stages.text_encode_s + stages.denoise_s + stages.vae_decode_s
    assert known_s == pytest.approx(duration_s, rel=0.02, abs=SLICE_S)
    assert known_s + stages.other_s == pytest.approx(duration_s, abs=1e-9)
    assert sum(stages.denoise_step_s) == pytest.approx(stages.denoise_s, abs=1e-9)
    assert stages.denoise_step_s == pytest.approx(tiny.components["transformer"].spent_s, abs=SLICE_S)
    assert "steps_unknown" not in [warning.code for warning in warnings]


def test_time_in_no_stage_is_other_and_is_told(pipeline, run):
    stages, _, warnings = run(pipeline(text_s=0.02, step_s=0.02, decode_s=0.02, other_s=0.1))
    assert 0.1 <= stages.other_s < 0.1 + SLICE_S
    assert [warning.code for warning in warnings] == ["other_time"]


def test_several_calls_a_step_keep_the_steps(pipeline, run):
    stages, *_ = run(pipeline(step_s=0.02, calls=(2, 2, 2)))
    assert len(stages.denoise_step_s) == 3
    assert sum(stages.denoise_step_s) == pytest.approx(stages.denoise_s, abs=1e-9)


def test_uneven_calls_of_patches_are_told_apart_where_known(pipeline, run):
    tiny = pipeline(step_s=0.1, calls=(1, 3, 3))
    stages, *_ = run(tiny, calls=(1, 3, 3))
    calls_s = tiny.components["transformer"].spent_s
    spent_s = (calls_s[0], sum(calls_s[1:4]), sum(calls_s[4:7]))
    assert stages.denoise_step_s == pytest.approx(spent_s, abs=SLICE_S)


def test_calls_that_do_not_fit_give_no_steps_but_a_reason(pipeline, run):
    stages, _, warnings = run(pipeline(step_s=0.01, calls=(1, 2, 2)))
    assert stages.denoise_step_s is None
    assert stages.step_reason == "the denoiser was called 5 times where a multiple of 3 was expected"
    assert "steps_unknown" in [warning.code for warning in warnings]
    assert stages.denoise_s >= 0.05


def test_hooks_are_gone_afterwards(pipeline, run):
    tiny = pipeline()
    run(tiny)
    modules = (m for part in tiny.components.values() for m in part.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


def test_a_generate_without_known_components_has_no_stages(batch, sleeping, measured):
    probe = StageProbe({"embedder": torch.nn.Linear(1, 1)}, FLUX.stages, 3, CPU)
    found, _ = measured(sleeping(0.0), [], [batch(1)], probe=probe)
    assert found.iterations[0].stages is None


def test_the_schedulers_last_step_is_denoising(pipeline, run):
    stages, *_ = run(pipeline(text_s=0, step_s=0.01, decode_s=0.01, scheduler_s=0.2))
    assert all(step_s >= 0.2 for step_s in stages.denoise_step_s) and stages.denoise_s >= 0.6
    assert stages.other_s < 0.1


def test_each_part_of_a_window_is_told_in_order(pipeline, batch):
    tiny, told = pipeline(text_s=0, step_s=0, decode_s=0, steps=2), []
    with StageProbe(tiny.components, FLUX.stages, 2, CPU) as probe:
        probe.watch(told.append)
        probe.open()
        tiny.generate(batch(1))
    # Two encoder calls, two steps, then the VAE, whose decoding ends with its decoder.
    text, steps = ["text_encode", "other"] * 2, ["denoise", "denoise"] * 2
    assert told == [*text, *steps, "vae_decode", "other"]


def test_casts_of_the_vae_are_decoding_and_moves_are_not(monkeypatch):
    """SDXL in float16: the pipeline casts the VAE to float32 before it decodes, and back afterwards."""
    clock = iter(range(100))
    monkeypatch.setattr("mlenergy.diffusion.measure.stages.time.monotonic", lambda: float(next(clock)))
    denoiser, vae = torch.nn.Identity(), torch.nn.Linear(1, 1)
    with StageProbe({"transformer": denoiser, "vae": vae}, FLUX.stages, 1, CPU) as probe:
        probe.open()  # 0
        vae.to("cpu")
        denoiser(0)  # 1 to 2
        vae.to(dtype=torch.float64)  # 3 to 4
        vae(torch.zeros(1, dtype=torch.float64))  # 5 to 6
        vae.to(torch.float32)  # 7 to 8
        vae.to("cpu")
        spans = probe.spans()
    assert spans.intervals["denoise"] == ((1.0, 3.0),) and spans.intervals["vae_decode"] == ((3.0, 8.0),)
    assert "to" not in vars(vae), "the mark is gone with the probe"


def test_a_stage_that_this_rank_has_no_part_in_takes_no_time():
    text, denoiser = torch.nn.Identity(), torch.nn.Identity()
    with StageProbe({"text_encoder": text, "transformer": denoiser}, FLUX.stages, 1, CPU) as probe:
        probe.open()
        text(0), text(0), denoiser(0)
        spans = probe.spans()
    assert len(spans.intervals["text_encode"]) == 2 and "vae_decode" not in spans.intervals
    assert stage_times(spans, 1.0, 0.0).vae_decode_s == 0
