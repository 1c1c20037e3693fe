"""Options become optimizations and options again; each set of optimizations has a folder of its own."""

import re
import shlex

import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.argv import torchrun_line
from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.build import configuration
from mlenergy.diffusion.results.names import folder_name, identity_digest

FLUX, SDXL = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0"


def plan_of(*words, model=FLUX, device="cuda"):
    args = parse_args(["workload:t2i", "--workload.model_id", model, *words])
    return make_plan(args, resolve_model(model), 1, device, "NVIDIA H200")


CHANGED = {
    "--use_torch_compile": Optimizations(compile_mode="regional"),
    "--use-torch-compile --compile-mode whole": Optimizations(compile_mode="whole"),
    "--attention_backend cudnn": Optimizations(attention="cudnn"),
    "--quantization int8-dynamic": Optimizations(quantization="int8-dynamic"),
    "--quantization fp8-dynamic": Optimizations(quantization="fp8-dynamic"),
    "--layerwise_fp8": Optimizations(layerwise_fp8=True),
    "--use_fp8_t5_encoder": Optimizations(fp8_t5_encoder=True),
    "--enable_model_cpu_offload": Optimizations(offload="model"),
    "--enable_sequential_cpu_offload": Optimizations(offload="sequential"),
    "--enable_group_offload": Optimizations(offload="group"),
    "--vae_slicing --workload.batch_size 2": Optimizations(vae_slicing=True),
    "--vae_tiling": Optimizations(vae_tiling=True),
    "--vae_dtype float32": Optimizations(vae_dtype="float32"),
    "--use_fbcache": Optimizations(cache="fbcache", cache_threshold=0.12),
    "--use_teacache --cache_threshold 0.25": Optimizations(cache="teacache", cache_threshold=0.25),
    "--cache_method magcache": Optimizations(cache="magcache", cache_threshold=0.06),
    "--cache_method pab": Optimizations(cache="pab"),
    "--use_torch_compile --inductor_mode max-autotune-no-cudagraphs --compile_fullgraph": Optimizations(
        compile_mode="regional", inductor_mode="max-autotune-no-cudagraphs", compile_fullgraph=True
    ),
    "--compile_vae --compile_text_encoders --no_compile_cache --no_inductor_epilogue_fusion": Optimizations(
        compile_vae=True, compile_text_encoders=True, compile_cache=False, inductor_epilogue_fusion=False
    ),
    "--compile_vae --inductor_coordinate_descent --inductor_conv_1x1_as_mm": Optimizations(
        compile_vae=True, inductor_coordinate_descent=True, inductor_conv_1x1_as_mm=True
    ),
    "--compile_vae --compile_static_shapes": Optimizations(compile_vae=True, compile_static_shapes=True),
    "--fuse_qkv": Optimizations(fuse_qkv=True),
    "--vae_channels_last --cudnn_benchmark": Optimizations(vae_channels_last=True, cudnn_benchmark=True),
    "--tf32 --workload.dtype float32": Optimizations(tf32=True),
    "--scheduler unipc": Optimizations(scheduler="unipc"),
    "--use_fbcache --use_torch_compile --attention_backend flash --use_fp8_t5_encoder": Optimizations(
        compile_mode="regional", attention="flash", fp8_t5_encoder=True, cache="fbcache", cache_threshold=0.12
    ),
}


@pytest.mark.parametrize("words", CHANGED)
def test_words_become_optimizations_and_words_again(words):
    plan = plan_of(*words.split())
    assert plan.optimizations == CHANGED[words]
    line = shlex.split(torchrun_line(plan))
    again = parse_args(line[line.index("mlenergy.diffusion.benchmark") + 1 :])
    assert make_plan(again, plan.spec, 1, "cuda", "NVIDIA H200") == plan
    assert configuration(plan)["knobs"]["scheduler"] == plan.optimizations.scheduler


def test_every_set_up_has_a_folder_of_its_own_and_none_is_named_for_an_optimization_that_is_off():
    plans = [plan_of(*words.split(), "--workload.batch_size", "2") for words in CHANGED]
    assert len({folder_name(plan) for plan in plans}) == len({identity_digest(plan) for plan in plans})
    assert len({folder_name(plan) for plan in plans}) == len(CHANGED)
    assert "+id-" not in folder_name(plan_of("--use_fbcache")), "the name tells all"
    assert re.search(r"cache|compile|sched|knob", folder_name(plan_of())) is None


def test_a_unets_blocks_are_few_so_it_is_compiled_whole():
    assert plan_of("--use_torch_compile", model=SDXL).optimizations.compile_mode == "whole"


def test_the_engine_is_one_that_has_the_cache():
    assert plan_of("--use_teacache").engine == "xdit"
    assert plan_of("--cache_method", "taylorseer").engine == "diffusers"
    assert plan_of("--use_fbcache", model="PixArt-alpha/PixArt-XL-2-1024-MS").engine == "diffusers"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--use_teacache --use_fbcache", "a run has one cache"),
        ("--use_teacache --cache_method pab", "a run has one cache"),
        ("--compile_mode whole", "add --use_torch_compile"),
        ("--cache_threshold 0.1", "belongs to one of the caches fbcache"),
        ("--cache_method pab --cache_threshold 0.1", "belongs to one of the caches fbcache"),
        ("--enable_group_offload --enable_model_cpu_offload", "exclude each other"),
        ("--attention_backend sdpa2", "sdpa2"),
    ],
)
def test_options_that_exclude_each_other(words, complaint):
    with pytest.raises(UserError) as error:
        plan_of(*words.split())
    assert complaint in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "dtype", "asked", "named"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "float16", "float16", "float16"),  # without the cast
        ("stabilityai/stable-diffusion-xl-base-1.0", "bfloat16", "bfloat16", "own"),
        ("black-forest-labs/FLUX.1-dev", "bfloat16", "bfloat16", "own"),
        ("black-forest-labs/FLUX.1-dev", "float16", "float16", "own"),
        ("black-forest-labs/FLUX.1-dev", "bfloat16", "float32", "float32"),
    ],
)
def test_a_vae_in_the_type_that_it_has_anyway_is_no_other_set_up(model, dtype, asked, named):
    words = ["--vae_dtype", asked, "workload:t2i", "--workload.model_id", model, "--workload.dtype", dtype]
    plan = make_plan(parse_args(words), resolve_model(model), 1, "cuda", "NVIDIA H200")
    assert plan.optimizations.vae_dtype == named
    assert plan.optimizations.lossy == ([f"VAE in {named}"] if named == "float16" else [])


def test_what_is_lossy_is_said_and_what_is_not_is_not():
    exact = Optimizations(
        compile_mode="whole",
        attention="fa3",
        offload="group",
        attention_slicing=True,
        vae_slicing=True,
        fuse_qkv=True,
        vae_channels_last=True,
        unet_channels_last=True,
        cudnn_benchmark=True,
        compile_vae=True,
        compile_text_encoders=True,
        inductor_mode="max-autotune-no-cudagraphs",
    )
    assert exact.lossy == Optimizations().lossy == []
    every = Optimizations(
        quantization="fp8-dynamic",
        fp8_t5_encoder=True,
        vae_tiling=True,
        cache="fbcache",
        cache_threshold=0.1,
        scheduler="ddim",
        attention="sage",
        tf32=True,
    )
    assert len(every.lossy) == 7 and "cache fbcache at 0.1" in every.lossy
