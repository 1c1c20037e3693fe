"""One plan, one folder name: another value in any field of any plan is another name."""

from __future__ import annotations

import unicodedata
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from result_samples import make_plan

from mlenergy.diffusion.config.optimizations import (
    AttentionName,
    CompileMode,
    InductorMode,
    Offload,
    Optimizations,
    Quantization,
    SchedulerName,
    VaeDtype,
)
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan, PromptOrder
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.spec import CacheMethod
from mlenergy.diffusion.results.names import folder_name
from mlenergy.diffusion.results.paths import RunPaths

# Beside any text those that look alike once they are part of a name.
ALIKE = ("a b", "a_b", "a/b", "a+b", "a  b", "\u00e9", "e\u0301", "x" * 64, "x" * 65, "龙" * 21, "龙" * 22)
TEXT = st.sampled_from(ALIKE) | st.text(min_size=1, max_size=90)
COUNT = st.integers(1, 4) | st.integers(1, 10**9)
SHARE = st.floats(0, 1, exclude_min=True, exclude_max=True)
FIGURE = st.floats(0, 1000, allow_subnormal=False) | st.sampled_from([0.1 + 0.2, 0.3, 7.0])
SWITCH = st.booleans()


def one_of(kind: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(get_args(kind))


OF_PLAN: dict[str, st.SearchStrategy[Any]] = {
    "spec": st.sampled_from([*BY_ID.values()]) | TEXT.map(lambda t: replace(BY_ID["tiny/flux"], model_id=t)),
    "revision": st.none() | TEXT,
    "engine": st.sampled_from(["xdit", "diffusers"]),
    "device": st.sampled_from(["cuda", "cpu", "mps"]),
    "device_name": TEXT,
    "dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
    "batch_size": COUNT,
    "height_px": COUNT,
    "width_px": COUNT,
    "steps": COUNT,
    "guidance_scale": st.none() | FIGURE,
    "negative_prompt": st.none() | st.just("") | TEXT,
    "max_sequence_length": st.none() | COUNT,
    "seed": st.integers(0, 2**62),
    "dataset": TEXT,
    "prompt_column": TEXT,
    "prompt_prefix": st.just("") | TEXT,
    "warmup_iters": st.integers(0, 9),
    "benchmark_iters": COUNT,
    "save_images": SWITCH,
    "target_ci": st.none() | SHARE,
    "max_iters": COUNT,
    "energy_gpus": st.lists(st.sampled_from(["0", "1", "0-1", "all"]), max_size=3).map(tuple),
    "power_limit_w": st.none() | FIGURE,
    "use_resolution_binning": SWITCH,
    "variant": st.none() | TEXT,
    "lora": st.none() | TEXT,
    "allow_pickle": SWITCH,
    "trust_remote_code": SWITCH,
    "weights": st.sampled_from(["pretrained", "random"]),
    "prompt_order": one_of(PromptOrder),
    "class_ids": st.none() | st.lists(COUNT, min_size=1, max_size=3).map(tuple),
    "top_k": st.none() | COUNT,
    "top_p": st.none() | SHARE,
    "num_frames": st.none() | COUNT,
    "fps": st.none() | COUNT,
    "guidance_scale_2": st.none() | FIGURE,
    "boundary_ratio": st.none() | SHARE,
    "save_latents": SWITCH,
}
OF_DEGREES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("data", "cfg", "pipefusion", "ring", "ulysses", "tensor"), COUNT),
    "num_pipeline_patch": st.none() | COUNT,
    "pipefusion_warmup_steps": st.integers(0, 9),
    "parallel_vae": SWITCH,
}
OF_OPTIMIZATIONS: dict[str, st.SearchStrategy[Any]] = {
    "compile_mode": st.none() | one_of(CompileMode),
    "attention": one_of(AttentionName),
    "quantization": st.none() | one_of(Quantization),
    "offload": st.none() | one_of(Offload),
    "cache": st.none() | one_of(CacheMethod),
    "cache_threshold": st.none() | FIGURE,
    "vae_dtype": one_of(VaeDtype),
    "inductor_mode": one_of(InductorMode),
    "scheduler": one_of(SchedulerName),
}
for one in fields(Optimizations):  # switches need no strategy of their own
    if isinstance(one.default, bool):
        OF_OPTIMIZATIONS[one.name] = SWITCH


def changed(plan: Plan, name: str, value: Any) -> Plan:
    if name in OF_DEGREES:
        return replace(plan, parallel=replace(plan.parallel, **{name: value}))
    if name in OF_OPTIMIZATIONS:
        return replace(plan, optimizations=replace(plan.optimizations, **{name: value}))
    if name == "spec":
        return replace(plan, spec=value, weights_from=value.model_id)
    return replace(plan, **{name: value})


FIELDS = {**OF_PLAN, **OF_DEGREES, **OF_OPTIMIZATIONS}


def test_every_field_is_varied_here() -> None:
    apart = {"base_dir", "weights_from", "parallel", "optimizations", "preset"}  # preset: test_presets.py
    assert {one.name for one in fields(Plan)} - apart == set(OF_PLAN)
    assert {one.name for one in fields(Parallelism)} == set(OF_DEGREES)
    assert {one.name for one in fields(Optimizations)} == set(OF_OPTIMIZATIONS)


@st.composite
def some_plans(draw: st.DrawFn) -> Plan:
    """A usual plan with up to three other values."""
    plan = make_plan()
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True)):
        plan = changed(plan, name, draw(FIELDS[name]))
    return plan


def another_value_is_another_name(name: str, data: st.DataObject) -> None:
    plan = data.draw(some_plans())
    one, other = (changed(plan, name, data.draw(FIELDS[name])) for _ in range(2))
    assert folder_name(one) == folder_name(replace(one, base_dir="elsewhere"))
    assume(one != other)
    assert folder_name(one) != folder_name(other)


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=6)
@given(data=st.data())
def test_another_value_is_another_name(name: str, data: st.DataObject) -> None:
    another_value_is_another_name(name, data)


@pytest.mark.full
@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=100)
@given(data=st.data())
def test_another_value_is_another_name_in_many_examples(name: str, data: st.DataObject) -> None:
    another_value_is_another_name(name, data)


@given(plan=some_plans(), prompt=st.text(max_size=300), index=st.integers(0, 10**6))
def test_names_are_within_the_limit_composed_and_harmless(plan: Plan, prompt: str, index: int) -> None:
    paths = RunPaths.of(plan)
    for name in (paths.folder.name, paths.image(index, prompt).name):
        assert len(name.encode()) < 200
        assert unicodedata.is_normalized("NFC", name)
        assert all(one.isascii() or unicodedata.category(one)[0] in "LMN" for one in name)
        assert not set(name) & set("/\\:*?\"'<>|$`& \n\0;()[]{}~!#%")
    assert paths.image(index, prompt).name != paths.image(index + 1, prompt).name
