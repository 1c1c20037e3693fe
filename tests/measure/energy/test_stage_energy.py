"""Joules of every stage, on a pipeline whose stages keep to the power curve's edges."""

from __future__ import annotations

import numpy as np
import pytest
from driver_double import double_controls, uuid

from mlenergy.diffusion.measure.energy.curves import CounterRead, Curve, Sample, Track
from mlenergy.diffusion.measure.energy.stages import gpu_stages
from mlenergy.diffusion.measure.stages import StageSpans

TEXT_S, DENOISE_S, DECODE_S, WINDOW_S = 0.06, 1.2, 0.09, 1.4
WATTS = {"text": 200.0, "denoise": 700.0, "decode": 350.0, "rest": 90.0}
SPANS = StageSpans(
    intervals={
        # Two encoders, one after the other.
        "text_encode": ((0.0, TEXT_S / 3), (TEXT_S / 3, TEXT_S)),
        "denoise": ((TEXT_S, TEXT_S + DENOISE_S),),
        "vae_decode": ((TEXT_S + DENOISE_S, TEXT_S + DENOISE_S + DECODE_S),),
    },
    step_begins=(TEXT_S,),
)


def energy_at(times, begins):
    """Joules up to each moment, for windows that begin at ``begins`` with these stages."""
    power = [(0.0, TEXT_S, "text"), (TEXT_S, DENOISE_S, "denoise"), (TEXT_S + DENOISE_S, DECODE_S, "decode")]
    joules = WATTS["rest"] * times
    for begin in begins:
        for offset, length, name in power:
            inside = np.clip(times - begin - offset, 0, length)
            joules = joules + (WATTS[name] - WATTS["rest"]) * inside
    return joules


def curve_of_a_counter(begins, period_s):
    moves = np.arange(0, begins[-1] + WINDOW_S + 2 * period_s, period_s)
    return Curve(tuple(moves.tolist()), tuple(energy_at(moves, begins).tolist()))


def test_short_stages_are_solved_from_many_windows_though_the_counter_is_slow():
    begins = [0.5 + i * 1.637 for i in range(12)]  # so that the windows fall anywhere in a period
    windows = [(begin, begin + WINDOW_S) for begin in begins]
    split = gpu_stages(curve_of_a_counter(begins, 0.1), windows, [SPANS] * 12, 0.1)
    assert split.aggregated == {"text_encode", "vae_decode"}
    assert split.energy_j["text_encode"] == pytest.approx(WATTS["text"] * TEXT_S, rel=0.02)
    assert split.energy_j["vae_decode"] == pytest.approx(WATTS["decode"] * DECODE_S, rel=0.02)
    assert split.energy_j["denoise"] == pytest.approx(WATTS["denoise"] * DENOISE_S, rel=0.02)
    total = energy_at(np.array([begins[0] + WINDOW_S]), begins) - energy_at(np.array([begins[0]]), begins)
    assert sum(split.energy_j.values()) == pytest.approx(float(total[0]), rel=0.02)


def test_a_quick_counter_is_read_stage_by_stage():
    begins = [0.5, 2.6]
    windows = [(begin, begin + WINDOW_S) for begin in begins]
    split = gpu_stages(curve_of_a_counter(begins, 0.002), windows, [SPANS] * 2, 0.002)
    assert split.aggregated == frozenset()
    assert split.energy_j["text_encode"] == pytest.approx(WATTS["text"] * TEXT_S, rel=0.02)
    rest_s = WINDOW_S - TEXT_S - DENOISE_S - DECODE_S
    assert split.energy_j["other"] == pytest.approx(WATTS["rest"] * rest_s, rel=0.05)


def test_a_curve_that_does_not_cover_the_windows_gives_nothing():
    curve = Curve((0.0, 1.0), (0.0, 100.0))
    assert gpu_stages(curve, [(0.5, 1.5)], [SPANS], 0.1) is None


def test_held_samples_of_constant_power_integrate_to_power_times_time():
    curve = Track(samples=[Sample(t / 10, 250.0, None, None, None) for t in range(11)]).power_curve
    assert curve.between(0.0, 1.0) == pytest.approx(250.0)
    assert curve.between(0.25, 0.75) == pytest.approx(125.0)
    assert Track(samples=[Sample(0.0, 250.0, None, None, None)]).power_curve is None
    assert not curve.covers(0.5, 1.01)


def test_a_counter_moves_between_the_old_and_the_new_read():
    reads = [CounterRead(0.0, 0.0, 5.0)]
    reads += [CounterRead(0.09 + i / 10, 0.10 + i / 10, 10.0 * i) for i in range(5)]
    curve = Track(counter=reads).counter_curve
    assert curve.times_s[0] == pytest.approx(0.095) and len(curve.times_s) == 5
    assert Track(counter=reads[:2]).counter_curve is None


def test_stages_of_a_real_run_on_the_double(on_double):
    # 0.3 s at 600 W from the begin of each second, 0.7 s at 100 W: text and steps, then decode.
    case = {
        "options": {"energy_gpus": ["all"]},
        "windows": 4,
        "stages": [0.1, 0.2, 0.5],
        "align_s": 1.0,
        "controls": double_controls(gpus=2, power="square:100:600:1.0:0.3;const:50", counter_s=0.005),
    }
    slow = {**case, "controls": {**case["controls"], **double_controls(counter_s=0.1)}}
    quick, slow = on_double(case, slow)
    for measured in (quick, slow):
        assert measured["stage_energy_reason"] is None
        stages = {stage["stage"]: stage for stage in measured["stage_energy"]}
        assert list(stages) == ["text_encode", "denoise", "vae_decode", "other"]
        first = {name: stage["per_gpu_j"][uuid(0)] for name, stage in stages.items()}
        assert first["text_encode"] == pytest.approx(60, rel=0.15)
        assert first["denoise"] == pytest.approx(120, rel=0.1)
        assert first["vae_decode"] == pytest.approx(50, rel=0.15)
        assert stages["denoise"]["energy_j"] == pytest.approx(sum(stages["denoise"]["per_gpu_j"].values()))
        # The pipeline of this test has one denoising step.
        assert stages["denoise"]["energy_per_step_j"] == stages["denoise"]["energy_j"]
        assert stages["text_encode"]["energy_per_step_j"] is None
        mean_j = sum(measured["gpu_energy_j"]) / 4
        assert sum(stage["energy_j"] for stage in stages.values()) == pytest.approx(mean_j, rel=0.05)
    # Text takes 0.1 s, ten polls of the counter: exactly the least that is read directly; either is right.
    long = [stage for stage in quick["stage_energy"] if stage["stage"] in ("denoise", "vae_decode")]
    assert [stage["aggregated"] for stage in long] == [False, False]
    assert {s["stage"] for s in slow["stage_energy"] if s["aggregated"]} == {
        "text_encode",
        "denoise",
        "vae_decode",
    }


def test_without_stage_times_there_is_a_reason(on_double):
    (measured,) = on_double({"gpu": uuid(0), "seconds": 0.3})
    assert measured["stage_energy"] == []
    assert measured["stage_energy_reason"].startswith("no stage times")
