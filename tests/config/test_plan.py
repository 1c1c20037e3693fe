import dataclasses

import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.argv import options_of
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.environment.cpu import emulates_float16
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.plan_view import plan_as_dict
from mlenergy.diffusion.results.build import plan_warnings

DEV = "black-forest-labs/FLUX.1-dev"


def plan_of(*options, model=DEV, world=None, device="cuda"):
    args = parse_args(["workload:t2i", "--workload.model_id", model, *options])
    return make_plan(args, resolve_model(model), world, device, "NVIDIA H200")


@pytest.mark.parametrize(
    ("model", "steps", "guidance", "text"),
    [(DEV, 28, 3.5, 512), ("black-forest-labs/FLUX.1-schnell", 4, None, 256)],
)
def test_defaults_come_from_the_model(model, steps, guidance, text):
    plan = plan_of(model=model)
    assert (plan.steps, plan.guidance_scale, plan.max_sequence_length) == (steps, guidance, text)
    assert (plan.dtype, plan.height_px, plan.width_px) == ("bfloat16", 1024, 1024)
    assert plan.engine == "xdit"
    assert plan.tokens == 64 * 64


def test_explicit_values_survive():
    plan = plan_of(
        *("--warmup_iters", "5", "--benchmark_iters", "20", "--workload.inference_steps", "7"),
        *("--workload.height", "512", "--workload.width", "768", "--workload.guidance_scale", "0"),
        *("--workload.dtype", "float32", "--workload.seed", "0", "--workload.max_sequence_length", "64"),
    )
    assert (plan.warmup_iters, plan.benchmark_iters, plan.steps, plan.seed) == (5, 20, 7, 0)
    assert (plan.height_px, plan.width_px, plan.guidance_scale) == (512, 768, 0)
    assert (plan.dtype, plan.max_sequence_length) == ("float32", 64)


def test_processes_without_degrees_become_ulysses():
    assert plan_of(world=4).parallel.ulysses == 4


@pytest.mark.parametrize(
    ("options", "world", "complaint"),
    [
        (["--workload.batch_size", "0"], 1, "--workload.batch_size 0 is too small; use 1 or more"),
        (["--benchmark_iters", "0"], 1, "--benchmark_iters 0 is too small"),
        (["--warmup_iters", "-1"], 1, "--warmup_iters -1 is too small"),
        (["--target_ci", "1"], 1, "such as 0.01 for 1 %"),
        (["--target_ci", "0.01", "--max_iters", "3"], 1, "use 4 or more"),
        (["--workload.batch_size", "60000", "--benchmark_iters", "50"], 1, "is 3060000 images; a run makes"),
        (["--workload.height", "1000"], 1, "not a multiple of 16, which flux needs; use 992 or 1008"),
        (["--workload.width", "8"], 1, "use 16 or 32"),
        (["--ulysses_degree", "5"], 5, "does not divide the 24 attention heads"),
        (["--ulysses_degree", "2"], 3, "--ulysses_degree 2 = 2, but 3 processes were started"),
        (["--ring_degree", "3"], 3, "makes 64 rows of tokens"),
        (["--workload.negative_prompt", "blur"], 1, "has no classifier-free guidance"),
        (["--workload.max_sequence_length", "513"], 1, "outside of 1 to 512"),
        (["--engine", "diffusers", "--pipefusion_parallel_degree", "2"], 2, "use --engine xdit"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(options, world, complaint):
    with pytest.raises(UserError) as error:
        plan_of(*options, world=world)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_guidance_refuses_a_scale():
    with pytest.raises(UserError, match="takes no guidance scale"):
        plan_of("--workload.guidance_scale", "3.5", model="black-forest-labs/FLUX.1-schnell")


def test_the_engine_is_one_that_offers_the_modes():
    assert plan_of("--ulysses_degree", "2", world=2).engine == "xdit"
    sdxl = "stabilityai/stable-diffusion-xl-base-1.0"
    halves = ("--data_parallel_degree", "2", "--workload.batch_size", "2")
    assert plan_of(*halves, model=sdxl, world=2).engine == "diffusers"


def test_apples_gpu_is_for_diffusers_and_one_process():
    assert plan_of(device="mps").engine == "diffusers"
    with pytest.raises(UserError, match="one process"):
        plan_of("--ulysses_degree", "2", device="mps")


def test_an_unknown_tiny_model_lists_those_there_are():
    with pytest.raises(UserError, match="tiny/flux"):
        resolve_model("tiny/nothing")


def test_a_plan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_of().steps = 1


SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize(("model", "own"), [(SD15, "float16"), (DEV, "bfloat16"), ("tiny/flux", "float32")])
def test_the_default_dtype_is_the_models_own_on_a_gpu_and_float32_on_a_cpu(model, own):
    assert plan_of(model=model).dtype == own
    assert plan_of(model=model, device="cpu").dtype == "float32"
    asked = plan_of("--workload.dtype", "float16", model=model, device="cpu")
    assert asked.dtype == "float16", "an explicit one stays"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [None, "float16", "float32"])
def test_the_command_of_a_plan_leads_to_the_same_dtype(device, dtype):
    plan = plan_of(*([] if dtype is None else ["--workload.dtype", dtype]), model=SD15, device=device)
    options = options_of(plan)
    again = ["--workload.dtype", options["workload.dtype"]] if "workload.dtype" in options else []
    assert plan_of(*again, model=SD15, device=device).dtype == plan.dtype
    if dtype is None:
        assert not again, "on another machine that one's default is taken"


@pytest.mark.parametrize(
    ("flags", "machine", "emulates"),
    [
        ("fpu avx2 f16c avx512_bf16", "x86_64", True),
        ("fpu avx2 avx512_fp16 f16c", "x86_64", False),
        ("fpu amx_fp16", "AMD64", False),
        ("fpu f16c", "aarch64", False),
    ],
)
def test_a_cpu_that_emulates_float16_is_told_by_its_flags(tmp_path, monkeypatch, flags, machine, emulates):
    monkeypatch.setattr("platform.machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert emulates_float16(tmp_path / "cpuinfo") is emulates
    assert emulates_float16(tmp_path / "missing") is False


def test_float16_on_a_cpu_draws_a_warning(monkeypatch):
    slow = ["--workload.dtype", "float16"]
    monkeypatch.setattr("mlenergy.diffusion.config.dtype.emulates_float16", lambda: True)
    (warning,) = plan_warnings(plan_of(*slow, model=SD15, device="cpu"))
    assert warning["code"] == "slow_dtype" and "use --workload.dtype float32" in warning["message"]
    assert plan_warnings(plan_of(*slow, model=SD15)) == []
    assert plan_warnings(plan_of(model=SD15, device="cpu")) == []
    shown = plan_as_dict(plan_of(*slow, model=SD15, device="cpu"))
    assert shown["warnings"] == [warning]
    monkeypatch.setattr("mlenergy.diffusion.config.dtype.emulates_float16", lambda: False)
    assert plan_warnings(plan_of(*slow, model=SD15, device="cpu")) == []
