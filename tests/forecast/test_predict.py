"""Forecasts of plans: known runs, intervals, what is extrapolated and what is refused."""

import json
from dataclasses import replace

import pytest

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.predict import forecast_of, read_fitted
from mlenergy.diffusion.forecast.published import nearest_published

FLUX = "black-forest-labs/FLUX.1-dev"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture
def flux(plan_of):
    return plan_of(FLUX, inference_steps=50)


def test_a_published_run_that_is_not_among_those_of_the_fit(flux):
    """FLUX.1-dev on one H100, 1024 x 1024, 50 steps, eager: 11.64 s and 7,949 J in the public leaderboard."""
    assert nearest_published(flux, "H100").differs == ("batch 2",)
    found = forecast_of(flux, "H100")
    assert found.basis == "runs" and found.extrapolated == ()
    assert found.duration_s.value == pytest.approx(11.64, rel=0.05)
    assert found.energy_per_output_j.value == pytest.approx(7949, rel=0.06)
    assert found.duration_s.low < 11.64 < found.duration_s.high
    assert found.power_w == pytest.approx(7949 / 11.64, rel=0.05)
    assert sum(found.parts_s.values()) < found.duration_s.value < 1.05 * sum(found.parts_s.values())


GOLDEN = {
    ("H100", 1, 1, 1): (11.42, 7535),
    ("B200", 1, 1, 1): (7.678, 6837),
    ("H100", 8, 1, 1): (4.616, 12126),
}


@pytest.mark.parametrize(("gpu", "ulysses", "ring", "batch"), GOLDEN)
def test_forecasts_are_stable(flux, gpu, ulysses, ring, batch):
    found = forecast_of(
        replace(flux, parallel=Parallelism(ulysses=ulysses, ring=ring), batch_size=batch), gpu
    )
    seconds, joules = GOLDEN[gpu, ulysses, ring, batch]
    assert found.duration_s.value == pytest.approx(seconds, rel=0.01)
    assert found.energy_per_output_j.value == pytest.approx(joules, rel=0.01)


GOLDEN_VIDEO = (42.86, 27_858)


def test_joules_are_of_all_gpus_and_one_image(flux):
    four = forecast_of(replace(flux, parallel=Parallelism(ulysses=4), batch_size=2), "H100")
    assert four.energy_per_output_j.value * 2 == pytest.approx(4 * four.power_w * four.duration_s.value)


def test_more_work_takes_longer(flux):
    def seconds(**changes):
        return forecast_of(replace(flux, **changes), "B200").duration_s.value

    assert seconds() < seconds(steps=60) < seconds(batch_size=2) < seconds(height_px=2048, width_px=2048)
    assert seconds(parallel=Parallelism(ulysses=2)) < seconds()


def test_a_model_without_runs_has_the_wide_interval(plan_of):
    found = forecast_of(plan_of(SDXL), "H100")
    errors = read_fitted().errors["models"]["seconds"]
    assert found.basis == "models" and found.extrapolated[0] == f"no run of {SDXL} is behind it"
    assert found.duration_s.high == pytest.approx(found.duration_s.value * errors["high"])


def test_a_gpu_without_runs_is_extrapolated(flux):
    found = forecast_of(flux, "H200")
    assert found.basis == "gpus" and found.extrapolated == ("extrapolated to H200 by its data sheet",)
    same_arithmetic = forecast_of(flux, "H100")
    assert found.duration_s.value < same_arithmetic.duration_s.value, "its memory is faster"
    assert forecast_of(flux, "A100").duration_s.value > 2 * same_arithmetic.duration_s.value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "float32"}, "no time can be forecast in float32"),
        ({"optimizations": Optimizations(compile_mode="regional")}, "with --use_torch_compile"),
        ({"optimizations": Optimizations(cache="fbcache", cache_threshold=0.1)}, "with --cache_method"),
        ({"optimizations": Optimizations(quantization="fp8-dynamic")}, "with --quantization"),
        ({"optimizations": Optimizations(offload="model")}, "with --enable_model_cpu_offload"),
        ({"parallel": Parallelism(pipefusion=2)}, "with PipeFusion parallelism"),
        ({"parallel": Parallelism(tensor=2)}, "with tensor parallelism"),
    ],
)
def test_a_guess_is_refused(flux, changes, says):
    with pytest.raises(UserError, match=says):
        forecast_of(replace(flux, **changes), "H100")


def test_a_published_video(plan_of):
    """CogVideoX-2b, 49 frames of 480 x 720 on one H100: 43.0 s and 28,614 J in the public leaderboard."""
    plan = plan_of("zai-org/CogVideoX-2b", inference_steps=50, num_frames=49, height=480, width=720)
    found = forecast_of(replace(plan, dtype="bfloat16", engine="xdit"), "H100")
    assert found.basis == "videos"
    assert found.duration_s.low < 43.0 < found.duration_s.high
    assert found.energy_per_output_j.low < 28_614 < found.energy_per_output_j.high
    assert found.duration_s.value == pytest.approx(GOLDEN_VIDEO[0], rel=0.01)
    assert found.energy_per_output_j.value == pytest.approx(GOLDEN_VIDEO[1], rel=0.01)


def test_videos_have_errors_of_their_own_or_are_refused(plan_of):
    known = read_fitted()
    plan = replace(plan_of("zai-org/CogVideoX-2b", dtype="bfloat16"), engine="xdit")
    unknown = replace(plan_of("tiny/wan", dtype="bfloat16"), engine="xdit")
    for one, gpu, basis in (
        (plan, "H100", "videos"),
        (unknown, "H100", "video_models"),
        (unknown, "H200", "video_gpus"),
    ):
        found = forecast_of(one, gpu)
        error = known.errors[basis]["seconds"]
        assert found.basis == basis and bool(found.extrapolated) == (basis != "videos")
        assert found.duration_s.high == pytest.approx(error["high"] * found.duration_s.value)
        assert found.duration_s.low == pytest.approx(error["low"] * found.duration_s.value)
    images = {kind: known.errors[kind] for kind in ("runs", "models", "gpus")}
    without = replace(known, errors=images)
    with pytest.raises(UserError, match="no time can be forecast of videos: no error of these constants"):
        forecast_of(plan, "H100", without)
    with pytest.raises(UserError, match="no time can be forecast of tiny/wan: no error of these constants"):
        forecast_of(unknown, "H100", replace(known, errors={"videos": known.errors["videos"]}))


def test_a_longer_video_takes_more_than_its_share(plan_of):
    """Attention grows with the square of the frames, and the host converts every pixel of each."""
    plan = replace(plan_of("zai-org/CogVideoX-2b", num_frames=49, dtype="bfloat16"), engine="xdit")
    short = forecast_of(plan, "H100")
    long = forecast_of(replace(plan, num_frames=97), "H100")
    assert long.parts_s["denoise"] > 2.2 * short.parts_s["denoise"]
    after = [one.duration_s.value - sum(one.parts_s.values()) for one in (short, long)]
    pixels = 480 * 720 * 48 * read_fitted().time["H100"]["video_pixel_s"]
    assert after[1] - after[0] == pytest.approx(pixels)


def test_next_scale_prediction_is_refused(plan_of):
    with pytest.raises(UserError, match="of next-scale prediction"):
        forecast_of(plan_of("tiny/var", dtype="bfloat16"), "H100")


def test_several_gpus_without_nvlink_are_refused(flux):
    with pytest.raises(UserError, match="several L40S: it has no NVLink"):
        forecast_of(replace(flux, parallel=Parallelism(ulysses=2)), "L40S")
    assert forecast_of(flux, "L40S").basis == "gpus"


def test_plan_prints_the_forecast_of_every_way_in_its_order(run):
    code, shown = run("--gpu", "h100", "--processes", "8", "--json")
    content = json.loads(shown.out)
    assert code == 0
    assert set(content["forecast"]["duration_s"]) == {"value", "low", "high"}
    assert (
        content["forecast"]["energy_per_output_j"]["low"]
        < content["forecast"]["energy_per_output_j"]["value"]
    )
    ways = content["sizing"]["combinations"]
    seconds = [way["forecast"]["duration_s"]["value"] for way in ways if way["forecast"]]
    assert len(seconds) == 4 and seconds == sorted(seconds)
    assert all(way["forecast_reason"] for way in ways if way["forecast"] is None)
    assert content["sizing"]["gpu_memory_gib"] == pytest.approx(79.6, abs=0.1)


def test_plan_says_it_in_words(run):
    _, shown = run("--gpu", "H100")
    assert "s for 1 image on H100 (" in shown.out and "nine of ten runs lie within" in shown.out
    assert "ML.ENERGY leaderboard v3" in shown.out
    _, shown = run("--gpu", "H100", "--use_torch_compile")
    assert "forecast       none: no time can be forecast with --use_torch_compile" in shown.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpu", "H10"), "no data sheet of a GPU 'H10' is known; did you mean H100?"),
        (("--gpu", "TPU"), "use one of B200, H200"),
        (("--calibration", "x.json"), "--calibration needs --gpu"),
        (("--gpu", "H100", "--calibration", "x.json"), "x.json holds no constants of a forecast"),
    ],
)
def test_mistakes_are_one_line(run, words, says):
    code, shown = run(*words)
    assert code == 2 and says in shown.err and shown.err.count("\n") == 1
