"""Any options are the same after they were written as a command line and read again; so is any plan."""

from __future__ import annotations

import typing
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.config.argv import options_of, to_argv
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.option import Option
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

OPTIONS = CommandLine.of(BenchmarkArgs).options
MODELS = (
    "tiny/flux",
    "tiny/var",
    "tiny/wan",
    "tiny/sd3",
    "tiny/pixart-alpha",
    "tiny/sdxl",
    "black-forest-labs/FLUX.1-dev",
)
# Not in a plan: they say how a run is started.
NOT_IN_A_PLAN = {"device", "hang_timeout_s", "dry_run", "debug", "require_energy", "sample_period_s"}
NOT_IN_A_PLAN |= {"idle_s", "overwrite_results", "allow_no_effect", "reference"}


def values_of(option: Option) -> st.SearchStrategy[Any]:
    """Any values that an option takes, odd ones too."""
    if option.takes == "no value":
        return st.booleans()
    if typing.get_origin(option.value_type) is Literal:
        one: st.SearchStrategy[Any] = st.sampled_from(typing.get_args(option.value_type))
    elif option.value_type in (int, float):
        numbers = option.numbers
        assert numbers is not None
        low = numbers.least if numbers.least is not None else numbers.above
        high = numbers.most if numbers.most is not None else numbers.below
        if option.value_type is int:
            one = st.integers(int(low or 0), int(high or 0))
        else:
            open_ends = {"exclude_min": numbers.least is None, "exclude_max": numbers.most is None}
            one = st.floats(low, high, **open_ends)
    else:
        texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
        odd = st.sampled_from(
            ["-5", "--", "--x", "a=b", "workload:t2i", "None", "'", "-1e5", "=", "-h", "--help"]
        )
        one = (texts | odd).filter(str.strip)
        if option.takes == "values":  # which of its words are values is told by their first character
            one = one.filter(lambda text: not text.startswith(("-", "workload:")))
    return st.lists(one, min_size=1, max_size=3).map(tuple) if option.takes == "values" else one


@st.composite
def some_options(draw: st.DrawFn) -> dict[str, Any]:
    workload, kind = draw(st.sampled_from([("text-to-image", TextToImage), ("text-to-video", TextToVideo)]))
    own = {f"workload.{one.name}" for one in fields(kind)}
    known = sorted(name for name in OPTIONS if "." not in name or name in own)
    names = draw(st.lists(st.sampled_from(known), max_size=6, unique=True))
    given = {name: draw(values_of(OPTIONS[name])) for name in names}
    return {"workload": workload, "workload.model_id": "tiny/flux"} | given


@settings(max_examples=50)
@given(options=some_options())
def test_options_are_the_same_after_writing_and_reading(options: dict[str, Any]) -> None:
    args = parse_args(to_argv(options))
    workload = {f"workload.{one.name}": one.default for one in fields(args.workload)}
    defaults = {name: one.default for name, one in OPTIONS.items() if "." not in name} | workload
    for name, default in defaults.items():
        group, _, own = name.rpartition(".")
        value = getattr(getattr(args, group) if group else args, own)
        assert value == options.get(name, default), name
        assert type(value) is type(options.get(name, default)), name


@given(words=st.lists(st.sampled_from([*(f"--{name}" for name in OPTIONS), "1", "x", "--", "=", "-z", ""])))
def test_any_words_are_understood_or_refused_in_one_line(words: list[str]) -> None:
    try:
        parse_args(words)
    except UserError as error:
        assert "\n" not in str(error)


USUAL = {
    "ulysses_degree": st.sampled_from([1, 2, 4]),
    "ring_degree": st.sampled_from([1, 2]),
    "use_cfg_parallel": st.booleans(),
    "data_parallel_degree": st.sampled_from([1, 2]),
    "pipefusion_parallel_degree": st.sampled_from([1, 2]),
    "num_pipeline_patch": st.sampled_from([2, 4]),
    "warmup_steps": st.integers(0, 3),
    "tensor_parallel_degree": st.sampled_from([1, 2]),
    "use_parallel_vae": st.booleans(),
    "workload.batch_size": st.sampled_from([1, 2, 4]),
    "workload.height": st.sampled_from([128, 256]),
    "workload.width": st.sampled_from([128, 256]),
    "workload.inference_steps": st.integers(1, 9),
    "workload.max_sequence_length": st.integers(1, 64),
    "workload.guidance_scale": st.floats(0, 9),
    "workload.revision": st.none(),
    "workload.lora": st.none() | st.just(str(Path("weights") / "lora.safetensors")),
    "target_ci": st.none() | st.floats(0.001, 0.5),
    "benchmark_iters": st.integers(1, 50),
    "warmup_iters": st.integers(0, 5),
    "cache_threshold": st.floats(0, 2),
}


@st.composite
def some_plans(draw: st.DrawFn) -> Plan:
    common, all_names = st.sampled_from(sorted(USUAL)), st.sampled_from(sorted({*OPTIONS} - NOT_IN_A_PLAN))
    names = draw(st.lists(common, max_size=3, unique=True) | st.lists(all_names, max_size=4, unique=True))
    options = {name: draw(USUAL.get(name, values_of(OPTIONS[name]))) for name in names}
    model_id = options["workload.model_id"] = draw(st.sampled_from(MODELS))
    options["workload"] = "text-to-video" if resolve_model(model_id).family.makes_video else "text-to-image"
    planned = plan_of(options)
    assume(planned is not None)
    assert planned is not None
    return planned


def plan_of(options: dict[str, Any]) -> Plan | None:
    try:
        args = parse_args(to_argv(options))
        return make_plan(args, resolve_model(args.workload.model_id), None, "cuda", "NVIDIA H200")
    except UserError:
        return None


@pytest.mark.parametrize(
    "fifth", [{"data_parallel_degree": 2}, {"use_parallel_vae": True, "ulysses_degree": 2}]
)
def test_a_plan_of_every_mode_is_its_own_command_line(fifth: dict[str, Any]) -> None:
    words = {"use_cfg_parallel": True, "pipefusion_parallel_degree": 2, "num_pipeline_patch": 4, **fifth}
    words |= {"warmup_steps": 2, "ring_degree": 2, "workload.batch_size": 2}
    plan = plan_of({"workload.model_id": "stabilityai/stable-diffusion-3.5-medium", **words})
    assert plan is not None and plan.parallel.world_size == 16
    assert plan_of(options_of(plan)) == plan


@settings(max_examples=40)
@given(plan=some_plans())
def test_a_plans_own_command_line_makes_the_same_plan(plan: Plan) -> None:
    options = options_of(plan)
    assert plan_of(options) == plan
    again = plan_of(options)
    assert again is not None and options_of(again) == options
