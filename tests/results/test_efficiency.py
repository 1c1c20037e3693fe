"""FLOPs beside seconds and joules in a result."""

from dataclasses import replace

import pytest
from own_models import TWO_BLOCKS, write_configurations
from result_samples import NO_GPU, cpu_measurement, cpu_plan, gpu_measurement, make_plan

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import architecture
from mlenergy.diffusion.results.efficiency import count_ahead, efficiency_section, flops_of_ranks

MEASURED = gpu_measurement().iterations  # 8.3 s and 9,150 J in the mean, on two GPUs


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_rates_are_those_of_the_mean_iteration():
    found = efficiency_section(make_plan(), MEASURED)
    stages = found["stage_tflops"]
    total = stages["text_encode"] + 28 * stages["denoise_step"] + stages["vae_decode"]
    assert 50 * stages["denoise_step"] / 4 == pytest.approx(3719, rel=0.01)  # published; 4 images here
    assert found["tflops_per_iteration"] == pytest.approx(total)
    assert found["tflops_per_image"] == pytest.approx(total / 4)
    assert found["tflop_per_s"] == pytest.approx(total / 8.3)
    assert found["tflops_per_gpu"] == pytest.approx(total / 8.3 / 2)
    assert found["mfu"] == pytest.approx(total / 8.3 / 2 / 989.5)
    assert found["peak_dtype"] == "bfloat16" and "datasheet" in found["peak_source"]
    assert found["j_per_tflop"] == pytest.approx(9150 / total)
    assert {found["reason"], found["mfu_reason"], found["j_per_tflop_reason"]} == {None}


@pytest.mark.parametrize("degrees", [{"data": 2}, {"data": 4, "ulysses": 2}])
def test_gpus_of_all_data_parallel_groups_have_their_part(degrees):
    """Each group makes its own images beside the others: all GPUs work on the batch's FLOPs."""
    alone = efficiency_section(make_plan(parallel=Parallelism()), MEASURED)
    plan = make_plan(parallel=Parallelism(**degrees))
    found = efficiency_section(plan, MEASURED)
    assert found["tflops_per_iteration"] == alone["tflops_per_iteration"]
    for key in ("mfu", "tflops_per_gpu"):
        assert found[key] * plan.parallel.world_size == pytest.approx(alone[key])
    assert found["j_per_tflop"] == alone["j_per_tflop"]


def test_joules_of_some_windows_are_no_joules_a_tflop():
    iterations = (*MEASURED[:3], replace(MEASURED[3], energy=NO_GPU))
    found = efficiency_section(make_plan(), iterations)
    assert found["j_per_tflop"] is None and found["j_per_tflop_reason"] == "no energy was read"
    assert found["mfu"] > 0


def test_ranks_on_different_gpus_have_no_one_peak():
    mixed = efficiency_section(make_plan(), MEASURED, names=("NVIDIA A100-SXM4-80GB", "NVIDIA H200"))
    assert mixed["mfu"] is None and mixed["peak_tflops"] is None and mixed["tflops_per_gpu"] > 0
    assert mixed["mfu_reason"] == "the ranks compute on different GPUs: NVIDIA A100-SXM4-80GB, NVIDIA H200"
    assert efficiency_section(make_plan(), MEASURED, names=("NVIDIA H200",))["mfu"] > 0


def test_a_listed_model_on_a_cpu_has_its_work_but_no_share_of_a_peak():
    measured = cpu_measurement().iterations
    found = efficiency_section(make_plan(device="cpu", device_name="Some CPU"), measured)
    assert found["tflop_per_s"] > 0 and found["tflops_per_gpu"] is None and found["mfu"] is None
    assert found["mfu_reason"] == "no GPU takes part in this run"
    assert found["j_per_tflop"] is None and found["j_per_tflop_reason"]


@pytest.fixture
def own_plan(tmp_path):
    """Of a folder that nobody has counted."""
    folder = write_configurations(tmp_path / "own", "tiny/flux", {"vae": TWO_BLOCKS})
    return cpu_plan(weights_from=str(folder))


def test_after_the_windows_nothing_is_counted_any_more(own_plan, monkeypatch):
    monkeypatch.setattr(costs, "_ask_child", lambda asked: pytest.fail("counted"))
    found = efficiency_section(own_plan, cpu_measurement().iterations)
    assert found["tflops_per_iteration"] is None and "mlenergy plan counts it" in found["reason"]
    told = efficiency_section(own_plan, cpu_measurement().iterations, not_counted="it took too long")
    assert told["reason"] == told["mfu_reason"] == "it took too long"


def test_what_was_never_counted_is_counted_ahead_once(own_plan, monkeypatch):
    asked, said = [], []
    known = architecture("black-forest-labs/FLUX.1-dev").costs
    monkeypatch.setattr(costs, "_ask_child", lambda request: asked.append(request) or known)
    assert count_ahead(own_plan, said.append) is None
    assert efficiency_section(own_plan, cpu_measurement().iterations)["tflops_per_iteration"] > 0
    assert count_ahead(own_plan, said.append) is None
    assert len(asked) == len(said) == 1 and "counting the FLOPs" in said[0]
    assert count_ahead(make_plan(), said.append) is None and len(said) == 1  # its costs are shipped


def test_what_cannot_be_counted_is_the_reason_and_no_end(own_plan, monkeypatch):
    def fail(error):
        def ask(_request):
            raise error

        monkeypatch.setattr(costs, "_ask_child", ask)
        return count_ahead(own_plan, lambda _line: None)

    assert fail(UserError("counting took more than 300 s")) == "counting took more than 300 s"
    assert fail(OSError(12, "no memory")) == "counting failed (OSError: [Errno 12] no memory)"
    assert "neither a folder" in count_ahead(cpu_plan(weights_from="./nowhere"), lambda _line: None)


def test_work_that_would_not_be_used_is_not_counted(own_plan, monkeypatch):
    monkeypatch.setattr(costs, "_ask_child", lambda asked: pytest.fail("counted"))
    cached = replace(own_plan, optimizations=Optimizations(cache="fbcache"))
    assert count_ahead(cached, lambda _line: None) is None


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"optimizations": Optimizations(quantization="fp8-dynamic")}, "float8"),
        ({"optimizations": Optimizations(quantization="fp8-weight-only")}, "bfloat16"),
        ({"dtype": "float32"}, "tfloat32"),
    ],
)
def test_the_peak_is_that_of_the_type_that_products_are_computed_in(changes, dtype):
    assert efficiency_section(make_plan(**changes), MEASURED, tf32=True)["peak_dtype"] == dtype


def test_without_tf32_float32_has_the_plain_cores_peak():
    assert efficiency_section(make_plan(dtype="float32"), MEASURED)["peak_tflops"] == 67


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizations": Optimizations(cache="fbcache")}, "left out a part"),
        ({"use_resolution_binning": True}, "another size"),
    ],
)
def test_other_work_than_the_exact_one_is_not_held_against_it(changes, reason):
    found = efficiency_section(make_plan(**changes), MEASURED)
    assert found["mfu"] is None and found["tflops_per_gpu"] is None and found["j_per_tflop"] is None
    assert reason in found["reason"] and reason in found["mfu_reason"]


def test_calls_that_do_not_fit_the_steps_are_told():
    odd = [
        replace(i, stages=replace(i.stages, denoise_step_s=None, step_reason="31 calls in 30 steps"))
        for i in MEASURED
    ]
    assert efficiency_section(make_plan(), odd)["reason"] == "31 calls in 30 steps"


def test_flops_that_ranks_counted_as_they_ran_add_up():
    """Each data-parallel group counts its own images; a step is a part of what was denoised."""
    plan = replace(make_plan(), steps=4)
    ranks = [
        {"flops": {"text_encode": 10, "denoise": 400, "vae_decode": 7, "reason": None}},
        {"flops": {"text_encode": 20, "denoise": 800, "vae_decode": 9, "reason": None}},
    ]
    found = flops_of_ranks(plan, ranks)
    assert (found.text_encode, found.denoise_step, found.vae_decode) == (30, 300, 16)
    assert found.total == 30 + 1200 + 16
    shown = efficiency_section(plan, MEASURED, as_run=found)
    assert shown["tflops_per_iteration"] == pytest.approx(1246e-12)
    for changes in ({"compile_mode": "whole"}, {"quantization": "int8-dynamic"}):
        with pytest.raises(UserError, match="cannot be counted as they run"):
            flops_of_ranks(replace(plan, optimizations=Optimizations(**changes)), ranks)
    unknown = {"text_encode": None, "denoise": None, "vae_decode": None, "reason": "no formula"}
    for other in ({"flops": unknown}, {}):
        with pytest.raises(UserError, match=r"no formula|ranks with images of their own"):
            flops_of_ranks(plan, [ranks[0], other])
