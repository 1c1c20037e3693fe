"""The tables of optimizations, parallel modes and families agree with the options and with each other."""

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.attention import ATTENTION, kernel_names
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS, AttentionName, Optimizations
from mlenergy.diffusion.config.parallelism import AXES, MODES, Parallelism
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import Mode

PACKAGE = Path(__file__).parents[2] / "mlenergy" / "diffusion"
OPTIONS = {field.name for field in fields(BenchmarkArgs)}


def plan_of(model="tiny/sd3", **changes):
    work = TextToImage(model_id=model, **changes)
    return make_plan(BenchmarkArgs(work, device="cpu"), resolve_model(model), None, "cpu", "a CPU")


def test_every_optimization_has_its_record_and_every_record_its_options():
    assert set(OPTIMIZATIONS) == {field.name for field in fields(Optimizations)} - {"cache_threshold"}
    assert set(Optimizations().options) <= OPTIONS


def test_every_attention_backend_is_in_the_one_table_and_is_told_by_its_operators():
    assert {"auto", *ATTENTION} == set(get_args(AttentionName))
    operators = {
        "math": "aten._safe_softmax.default",
        "flash": "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "efficient": "aten._scaled_dot_product_efficient_attention.default",
        "cudnn": "aten._scaled_dot_product_cudnn_attention.default",
        "fa2": "flash_attn._flash_attn_forward.default",
        "fa3": "_diffusers_flash_attn_3._flash_attn_forward.default",
        "fa2-hub": "_flash_attn2_cuda_1a2b3c4._flash_attn_forward.default",
        "fa3-hub": "_flash_attn3_cuda_1a2b3c4._flash_attn_forward.default",
        "sage": "sageattention_sm89.qk_int8_sv_f8_accum_f16_fuse_v_scale_attn_inst_buf.default",
    }
    assert {name: kernel_names({operator: 1}) for name, operator in operators.items()} == {
        name: name for name in operators
    }
    for operator in ("flash_attn_3.fwd.default", "flash_attn_3._flash_attn_forward.default"):
        assert kernel_names({operator: 2}) == "fa3"
    for operator in ("sageattention", "sageattention_sm90"):
        assert kernel_names({f"{operator}.qk_int8_sv_f16_accum_f32_attn.default": 2}) == "sage"
    assert kernel_names({operators["flash"]: 1, operators["math"]: 1}) == "flash+math"
    assert kernel_names({"new.attention.default": 1}) == "new.attention.default"
    assert kernel_names({}) is None


@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_an_optimization_is_in_use_where_it_is_not_at_its_default(name):
    values = {
        "compile_mode": "whole",
        "attention": "sage",
        "quantization": "fp8-dynamic",
        "offload": "group",
        "cache": "pab",
        "scheduler": "ddim",
        "inductor_mode": "reduce-overhead",
        "inductor_epilogue_fusion": False,
        "compile_cache": False,
    }
    changed = Optimizations(**{name: values.get(name, True)})
    assert list(changed.in_use) == [name]
    assert Optimizations().in_use == {}


def test_a_record_answers_for_all_who_ask():
    stored = Optimizations(
        quantization="fp8-dynamic", offload="sequential", cache="fbcache", cache_threshold=0.2
    )
    assert stored.memory_options == ("--quantization", "--enable_sequential_cpu_offload")
    assert stored.lossy == ["cache fbcache at 0.2", "fp8-dynamic denoiser"]
    assert stored.computes_in == "float8"
    assert Optimizations(quantization="int8-weight-only").computes_in is None
    assert Optimizations(compile_mode="regional").options["compile_mode"] == "regional"
    assert Optimizations(compile_mode="regional").options["use_torch_compile"] is True


def test_every_parallel_mode_has_its_option_and_every_degree_its_axis():
    assert set(MODES) == set(get_args(Mode))
    assert {mode.option for mode in MODES.values()} <= OPTIONS
    degrees = dict.fromkeys(AXES, 2)
    assert Parallelism(**degrees).world_size == 2 ** len(AXES)
    assert Parallelism(**degrees, parallel_vae=True).modes == list(MODES)


def test_a_family_offers_caches_and_modes_of_the_same_engines():
    for family in FAMILIES.values():
        assert set(family.caches) <= set(family.modes)
        assert family.takes_text_length or not any(family.template_tokens)
        # Of modes that no engine offers, or not each of them.
        assert not set(family.reasons) & frozenset.intersection(*family.modes.values())


def test_families_are_told_by_their_facts_outside_of_models():
    """A new family is one entry of families.py."""
    asking = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "models" not in file.parts
        and any(words in file.read_text(encoding="utf-8") for words in ("family.name ==", "family.name in"))
    ]
    assert asking == []


def test_reasons_are_those_of_the_first_group_that_refuses():
    plan = plan_of()
    assert reasons(plan) == []
    broken = replace(plan, batch_size=10**9, height_px=0, parallel=Parallelism(ring=3))
    assert [reason.split()[0] for reason in reasons(broken)] == [
        "--workload.batch_size",
        "--workload.height",
    ]
