"""A preset comes to options that a run accepts, and to nothing else: its evidence, its refusals, its name."""

from __future__ import annotations

import io
import re
import shlex

import pytest
from tune_bench import space_of

from mlenergy.diffusion.config.args import parse_args, parse_plan_args, read_args
from mlenergy.diffusion.config.argv import to_argv, torchrun_line
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.presets import FIELD_OF, entries
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.own_runs import plan_of_result
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.plan_view import print_plan
from mlenergy.diffusion.results.build import configuration
from mlenergy.diffusion.results.names import folder_name, identity
from mlenergy.diffusion.results.setup import settings_of
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.settings import options_of

FLUX, SDXL = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0"
NAMES = ("fastest-lossless", "fastest", "least-energy", "least-memory")
H200 = "NVIDIA H200"


def plan_of(words: str, model: str = FLUX, world: int = 1, device: str = "cuda", name: str = H200) -> Plan:
    spec = resolve_model(model)
    kind = "text-to-video" if spec.family.makes_video else "text-to-image"
    args = read_args([f"workload:{kind}", *words.split(), "--workload.model_id", model])
    return make_plan(args, spec, world, device, name)


def taken(plan: Plan) -> dict[str, object]:
    assert plan.preset is not None
    return plan.preset.options


def reason_against(plan: Plan, **option: object) -> str:
    assert plan.preset is not None
    (found,) = [one.reason for one in plan.preset.left_out if dict(one.options) == option]
    return found


def test_every_entry_names_its_evidence_and_runs_that_there_are() -> None:
    assert {name for entry in entries() for name in entry.presets} == set(NAMES)
    families = {family.name for family in FAMILIES.values()}
    for entry in entries():
        evidence, conditions = entry.evidence, entry.conditions
        assert evidence.kind in ("measured", "published", "by rule")
        assert evidence.says and re.fullmatch(r"\d{4}-\d\d(-\d\d)?", evidence.date)
        assert evidence.source is not None or evidence.kind == "by rule"
        if evidence.kind == "published":
            assert re.search(r"\d", evidence.says) or "same kernel" in evidence.says, "a figure"
        assert set(entry.options) | set(entry.needs) <= set(FIELD_OF)
        assert set(conditions.families) <= families and set(conditions.models) <= set(BY_ID)


@pytest.mark.parametrize("preset", NAMES)
def test_no_model_gpu_or_number_of_gpus_refuses_a_preset(preset: str) -> None:
    counts = set()
    for model in (*list(BY_ID)[::5], FLUX, SDXL):
        for device, name, world in (("cuda", H200, 1), ("cuda", "NVIDIA A100-SXM4-80GB", 2), ("cpu", "x", 1)):
            words = "" if world == 1 else f"--data_parallel_degree {world} --workload.batch_size {world}"
            try:
                alone = plan_of(words, model, world, device, name)
            except UserError:
                continue
            plan = plan_of(f"--preset {preset} {words}", model, world, device, name)
            assert plan.preset is not None and reasons(plan) == []
            if preset == "fastest-lossless":
                assert plan.optimizations.lossy == alone.optimizations.lossy == []
            counts.add(len(taken(plan)))
    assert len(counts) > 1


def test_it_comes_to_the_options_that_the_run_accepts() -> None:
    plan = plan_of("--preset fastest-lossless")
    assert plan.optimizations.compile_mode == "regional" and plan.optimizations.fuse_qkv
    assert plan.optimizations.attention in ("fa3", "fa3-hub", "cudnn")
    assert "compute capability 10, and here it is 9" in reason_against(plan, attention_backend="fa4")
    assert "transformer" in reason_against(plan, unet_channels_last=True)
    fast = plan_of("--preset fastest")
    assert fast.optimizations.cache == "fbcache" and fast.optimizations.lossy
    older = plan_of("--preset fastest", name="NVIDIA A100-SXM4-80GB")
    assert older.optimizations.attention == "auto" and older.optimizations.quantization is None
    two = plan_of("--preset fastest-lossless", world=2)
    assert "xfuser's own attention" in reason_against(two, fuse_qkv=True)
    unet = plan_of("--preset fastest-lossless", model=SDXL)
    assert unet.optimizations.unet_channels_last and unet.optimizations.compile_mode == "whole"


@pytest.mark.parametrize(
    ("gpu", "kernels"),
    [
        ("NVIDIA H200", {"fa3", "fa3-hub", "cudnn"}),
        ("NVIDIA H100 80GB HBM3", {"fa3", "fa3-hub", "cudnn"}),
        ("NVIDIA B200", {"fa4", "fa4-hub", "cudnn"}),
        ("NVIDIA A100-SXM4-80GB", set()),
        ("NVIDIA L40S", set()),
        ("NVIDIA GeForce RTX 4090", set()),
    ],
)
def test_attention_kernels_are_named_for_the_gpus_that_their_evidence_is_of(
    gpu: str, kernels: set[str]
) -> None:
    plan = plan_of("--preset fastest-lossless", name=gpu)
    assert plan.preset is not None
    left_out = [(dict(one.options).get("attention_backend"), one.reason) for one in plan.preset.left_out]
    for_others = {name for name, reason in left_out if name and "compute capability" in reason}
    assert {"fa3", "fa3-hub", "fa4", "fa4-hub", "cudnn"} - for_others == kernels
    assert plan.optimizations.attention in kernels or (plan.optimizations.attention, kernels) == (
        "auto",
        set(),
    )


def test_published_evidence_has_an_address() -> None:
    for entry in entries():
        if entry.evidence.kind == "published":
            assert entry.evidence.source is not None and entry.evidence.source.startswith("https://")
    attention = {
        one.evidence.source for one in entries() if "attention_backend" in one.options and one.evidence.source
    }
    fa3, fa4 = "https://arxiv.org/abs/2407.08608", "https://arxiv.org/abs/2603.05451"
    assert attention == {fa3, fa4, "https://pytorch.org/blog/pytorch2-5/"}


def test_the_number_of_gpus_decides_how_memory_is_saved() -> None:
    assert taken(plan_of("--preset least-memory"))["enable_sequential_cpu_offload"]
    two = plan_of("--preset least-memory", world=2)
    assert two.optimizations.offload is None
    assert two.optimizations.quantization or two.optimizations.layerwise_fp8
    assert "at most 1 process" in reason_against(two, enable_sequential_cpu_offload=True)
    large = plan_of("--preset least-memory --workload.height 2048 --workload.batch_size 2")
    assert large.optimizations.vae_tiling and large.optimizations.vae_slicing


def test_given_options_win_even_at_their_defaults() -> None:
    words = "--preset fastest --no_use_torch_compile --attention-backend auto --use_teacache"
    words += " --no_compile_vae"
    plan = plan_of(words)
    assert plan.optimizations.compile_mode is None and not plan.optimizations.compile_vae
    assert plan.optimizations.attention == "auto" and plan.optimizations.cache == "teacache"
    assert reason_against(plan, use_torch_compile=True) == "the given options decide it"
    assert "--use_torch_compile" in reason_against(plan, quantization="fp8-dynamic")
    full = ["--workload.model_id", FLUX, *words.split()]
    for args in (parse_args(full), parse_plan_args(full, "x")):
        assert make_plan(args, plan.spec, 1, "cuda", H200) == plan
    offloaded = plan_of("--preset fastest --enable_model_cpu_offload")
    assert "hook the same layers" in reason_against(offloaded, use_torch_compile=True)
    # A given option that cannot work stays an error, and one that a preset makes possible is none.
    with pytest.raises(UserError, match="reads queries"):
        plan_of("--preset fastest --fuse_qkv", model="Lightricks/LTX-Video")
    assert plan_of("--preset fastest --compile_fullgraph").optimizations.compile_fullgraph


@pytest.mark.parametrize("preset", NAMES)
def test_it_is_the_same_set_up_as_its_options(preset: str) -> None:
    plan = plan_of(f"--preset {preset}")
    words = shlex.split(torchrun_line(plan))
    assert not any(word.startswith("--preset") for word in words)
    again = make_plan(read_args(words[4:]), plan.spec, 1, "cuda", H200)
    assert again == plan and again.preset is None
    assert folder_name(again) == folder_name(plan) and identity(again) == identity(plan)
    results = [{"configuration": configuration(one), "model_id": FLUX} for one in (plan, again)]
    assert settings_of(results[0]) == settings_of(results[1])
    assert plan_of_result(results[0]) == plan
    assert results[0]["configuration"]["preset"]["name"] == preset
    assert "preset" not in results[1]["configuration"]


def test_the_plan_says_what_it_took_and_left_out_and_why() -> None:
    shown = io.StringIO()
    print_plan(plan_of("--preset fastest-lossless"), stream=shown)
    text = " ".join(shown.getvalue().split())
    assert "preset fastest-lossless: --use_torch_compile --inductor_mode" in text
    assert "--use_torch_compile: published, 2026-11-22: a call of FLUX.1-dev's denoiser" in text
    assert "--fuse_qkv: measured, " in text and "--compile_vae: by rule, " in text
    assert "left out --attention_backend fa4" in text
    on_cpu = io.StringIO()
    print_plan(plan_of("--preset least-memory", "tiny/flux", device="cpu", name="x"), stream=on_cpu)
    text = " ".join(on_cpu.getvalue().split())
    assert "preset least-memory: no option of it is for this run" in text
    assert "--enable_sequential_cpu_offload, --quantization int8-weight-only" in text


def test_an_unknown_preset_is_one_line() -> None:
    with pytest.raises(UserError) as refused:
        read_args(["--preset", "fastes", "--workload.model_id", "tiny/flux"])
    line = str(refused.value)
    assert "--preset takes one of fastest-lossless, fastest" in line and "did you mean fastest?" in line
    assert "\n" not in line


def test_a_search_starts_from_it() -> None:
    words = ["--preset", "fastest-lossless", "--batch_sizes", "1", "--compile", "off", "on"]
    words += ["--attention_backends", "cudnn"]
    found = space_of(words, Machine("cuda", H200, 2, 141.0))
    compiled = {one.plan.optimizations.compile_mode for one in found.candidates}
    assert compiled == {None, "regional"}, "an axis is searched, whatever the preset says"
    assert all(one.plan.optimizations.vae_channels_last for one in found.candidates)
    assert {one.plan.parallel.world_size for one in found.candidates} == {1, 2}
    for one in found.candidates:
        assert one.plan.optimizations.fuse_qkv == (one.plan.parallel.sequence * one.plan.parallel.tensor == 1)
        argv = to_argv(options_of(one.args, one.plan))
        assert "--preset" not in argv
        world = one.plan.parallel.world_size
        assert make_plan(read_args(argv), one.plan.spec, world, "cuda", H200) == one.plan
