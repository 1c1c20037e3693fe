"""What cannot be turned is refused from the plan, in one line that says what would fit."""

import functools
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.checks import optimizations
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

IDS = {
    "flux": "black-forest-labs/FLUX.1-dev",
    "sd3": "stabilityai/stable-diffusion-3-medium-diffusers",
    "pixart": "PixArt-alpha/PixArt-XL-2-1024-MS",
    "hunyuan": "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
    "sd3.5": "tiny/sd3.5",
    "qwen": "Qwen/Qwen-Image",
    "klein": "black-forest-labs/FLUX.2-klein-4B",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}


def plan_of(family, words, device="cuda", world=1):
    args = parse_args(["workload:t2i", "--workload.model_id", IDS[family], *words.split()])
    return make_plan(args, resolve_model(IDS[family]), world, device, "a device")


REFUSED = [
    ("flux", "--attention_backend fa3-hub", "cuda", 1, "needs the package kernels"),
    ("flux", "--attention_backend fa4", "cuda", 1, "needs the package flash_attn.cute"),
    ("flux", "--attention_backend fa4-hub", "cpu", 1, "NVIDIA GPUs only"),
    ("flux", "--attention_backend cudnn", "cpu", 1, "NVIDIA GPUs only"),
    ("flux", "--attention_backend fa3", "cpu", 1, "NVIDIA GPUs only"),
    ("flux", "--attention_backend fa3", "cuda", 1, "needs the package flash_attn_interface"),
    ("flux", "--attention_backend sage", "cuda", 1, "needs the package sageattention"),
    ("flux", "--attention_backend flash --workload.dtype float32", "cuda", 1, "has no float32"),
    ("flux", "--attention_backend math --ring_degree 2", "cpu", 2, "on the CPU; use one of flash"),
    (
        "flux",
        "--engine diffusers --attention_backend math --ulysses_degree 2",
        "cpu",
        2,
        "on the CPU; use one of sdpa",
    ),
    ("flux", "--engine diffusers --attention_backend math --ulysses_degree 2", "cuda", 2, "cudnn"),
    ("flux", "--attention_backend sdpa --ring_degree 2", "cuda", 2, "use one of cudnn, efficient"),
    ("flux", "--attention_slicing", "cuda", 1, "does nothing for flux"),
    ("sdxl", "--attention_slicing --use_torch_compile", "cuda", 1, "brings its own attention"),
    ("flux", "--quantization fp8-dynamic", "cpu", 1, "needs an NVIDIA GPU"),
    ("flux", "--quantization fp8-dynamic --workload.dtype float16", "cuda", 1, "needs bfloat16"),
    ("flux", "--quantization int8-dynamic --layerwise_fp8", "cuda", 1, "store the same weights"),
    ("flux", "--layerwise_fp8 --pipefusion_parallel_degree 2", "cuda", 2, "cuts or rebuilds"),
    ("flux", "--quantization int8-dynamic --tensor_parallel_degree 2", "cuda", 2, "cuts or rebuilds"),
    ("sdxl", "--use_fp8_t5_encoder", "cuda", 1, "has no T5"),
    ("flux", "--enable_sequential_cpu_offload", "cpu", 1, "on the CPU they are there already"),
    ("flux", "--enable_model_cpu_offload --ulysses_degree 2", "cuda", 2, "without parallel degrees"),
    ("flux", "--enable_group_offload --use_torch_compile", "cuda", 1, "hook the same layers"),
    ("flux", "--vae_slicing", "cuda", 1, "use a larger batch"),
    ("flux", "--vae_slicing --workload.batch_size 2 --data_parallel_degree 2", "cuda", 2, "larger batch"),
    ("flux", "--vae_tiling --use_parallel_vae --ulysses_degree 2", "cuda", 2, "cut the same decoder"),
    ("sd3", "--use_teacache", "cuda", 1, "none for sd3 models"),
    ("flux", "--engine diffusers --use_teacache", "cuda", 1, "use --engine xdit"),
    (
        "flux",
        "--engine xdit --cache_method pab",
        "cuda",
        1,
        "use --engine diffusers, or --cache_method fbcache",
    ),
    ("sdxl", "--use_fbcache", "cuda", 1, "none for sdxl models; leave it out"),
    ("pixart", "--cache_method fastercache", "cuda", 1, "none for pixart-alpha"),
    ("flux", "--use_fbcache --workload.inference_steps 1", "cuda", 1, "there is one step"),
    ("sd3", "--cache_method fastercache --workload.guidance_scale 1", "cuda", 1, "runs none"),
    (
        "flux",
        "--engine diffusers --use_fbcache --ulysses_degree 2",
        "cuda",
        2,
        "--data_parallel_degree alone",
    ),
    ("sd3", "--engine diffusers --use_fbcache --use_cfg_parallel", "cuda", 2, "would part"),
    ("flux", "--use_teacache --pipefusion_parallel_degree 2", "cuda", 2, "or --ulysses_degree"),
    ("flux", "--use_teacache --engine xdit --tensor_parallel_degree 2", "cuda", 2, "would part"),
    ("flux", "--use_torch_compile --pipefusion_parallel_degree 2", "cuda", 2, "was not tried"),
    ("flux", "--use_torch_compile --cache_method pab", "cuda", 1, "inside of the blocks"),
    ("flux", "--use_torch_compile --compile_mode whole --use_fbcache", "cuda", 1, "--compile_mode regional"),
    ("sd3", "--engine diffusers --use_torch_compile --ulysses_degree 2", "cuda", 2, "length 255"),
    ("flux", "--scheduler ddim", "cuda", 1, "predicts a flow"),
    ("pixart", "--scheduler ddim --pipefusion_parallel_degree 2", "cuda", 2, "in patches"),
    ("pixart", "--scheduler unipc --ulysses_degree 2", "cuda", 2, "ddim or dpmsolver++"),
    ("flux", "--engine xdit --scheduler unipc --tensor_parallel_degree 2", "cuda", 2, "noise levels"),
    ("flux", "--inductor_mode max-autotune-no-cudagraphs", "cuda", 1, "add --use_torch_compile"),
    ("flux", "--compile_vae --compile_fullgraph", "cuda", 1, "is for the denoiser"),
    ("flux", "--no_compile_cache", "cuda", 1, "says how to compile"),
    ("flux", "--use_torch_compile --inductor_mode reduce-overhead", "cuda", 1, "--compile_mode whole"),
    ("sdxl", "--use_torch_compile --inductor_mode reduce-overhead", "cpu", 1, "need an NVIDIA GPU"),
    ("sdxl", "--compile_vae --inductor_mode max-autotune", "cuda", 1, "max-autotune-no-cudagraphs"),
    (
        "flux",
        "--use_torch_compile --inductor_mode reduce-overhead --use_fbcache",
        "cuda",
        1,
        "decides in each step",
    ),
    ("sdxl", "--compile_vae --enable_model_cpu_offload", "cuda", 1, "hook the same layers"),
    ("flux", "--compile_vae --use_parallel_vae --ulysses_degree 2", "cuda", 2, "decoder of its own"),
    ("flux", "--vae_channels_last --use_parallel_vae --ulysses_degree 2", "cuda", 2, "decoder of its own"),
    ("flux", "--unet_channels_last", "cuda", 1, "is a transformer"),
    ("flux", "--fuse_qkv --ulysses_degree 2", "cuda", 2, "use --engine diffusers"),
    ("flux", "--engine diffusers --fuse_qkv --tensor_parallel_degree 2", "cuda", 2, "use --ulysses_degree"),
    ("qwen", "--fuse_qkv", "cuda", 1, "attention of qwen-image models reads queries"),
    ("sd3.5", "--fuse_qkv", "cuda", 1, "second self-attention"),
    ("klein", "--engine xdit --fuse_qkv --ulysses_degree 2", "cuda", 2, "does not read fused projections"),
    ("sdxl", "--fuse_qkv --attention_slicing", "cuda", 1, "brings its own attention"),
    ("flux", "--cudnn_benchmark", "cpu", 1, "is for NVIDIA GPUs"),
    ("flux", "--tf32", "cpu", 1, "is for NVIDIA GPUs"),
    ("flux", "--tf32", "cuda", 1, "this run has none, in bfloat16"),
    ("sdxl", "--tf32 --vae_dtype float16", "cuda", 1, "this run has none, in float16"),
    ("flux", "--use_torch_compile", "mps", 1, "Apple's GPU"),
    ("flux", "--enable_model_cpu_offload", "mps", 1, "an Apple GPU shares it"),
]


@pytest.mark.parametrize(("family", "words", "device", "world", "complaint"), REFUSED)
def test_it_is_refused_with_the_reason(family, words, device, world, complaint):
    with pytest.raises(UserError) as error:
        plan_of(family, words, device, world)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "world", "complaint"),
    [
        ("--attention_backend fa3-hub --ulysses_degree 2 --engine xdit", 2, "xfuser, whose attention these"),
        ("--attention_backend fa4-hub --ring_degree 2 --engine diffusers", 2, "cannot share a sequence"),
        (
            "--attention_backend fa4 --engine diffusers",
            1,
            "diffusers, whose attention this run has, has it not",
        ),
    ],
)
def test_kernels_of_the_hub_are_diffusers_own(monkeypatch, words, world, complaint):
    monkeypatch.setattr(optimizations, "find_spec", lambda _: object())
    with pytest.raises(UserError) as error:
        plan_of("flux", words, world=world)
    assert complaint in str(error.value) and "use one of" in str(error.value)
    plan_of("flux", "--engine diffusers --attention_backend fa3-hub --ring_degree 2", world=2)


@pytest.mark.parametrize(
    ("name", "gpu", "fits"),
    [
        *(("fa3-hub", "NVIDIA H200", True), ("fa3-hub", "NVIDIA B200", False)),
        *(("fa3-hub", "NVIDIA A100-SXM4-80GB", False), ("fa3-hub", "NVIDIA XY1", True)),
        *(("fa4-hub", "NVIDIA H100 80GB HBM3", True), ("fa4-hub", "NVIDIA GB200", True)),
        *(("fa4-hub", "NVIDIA L40S", False), ("fa2-hub", "NVIDIA L40S", True)),
    ],
)
def test_a_kernel_for_other_gpus_is_refused_where_the_gpu_is_known(monkeypatch, name, gpu, fits):
    monkeypatch.setattr(optimizations, "find_spec", lambda _: object())
    words = ["workload:t2i", "--workload.model_id", IDS["flux"], "--attention_backend", name]
    args = parse_args(words)
    make = functools.partial(make_plan, args, resolve_model(IDS["flux"]), 1, "cuda")
    if fits:
        assert make(gpu).optimizations.attention == name
    else:
        with pytest.raises(UserError, match="is built for other GPUs than"):
            make(gpu)


@pytest.mark.parametrize(
    ("family", "words", "device", "world"),
    [
        ("flux", "--use_fbcache --use_torch_compile --attention_backend cudnn", "cuda", 1),
        ("flux", "--use_teacache --ulysses_degree 2", "cuda", 2),
        ("flux", "--use_torch_compile --compile_mode whole --inductor_mode reduce-overhead", "cuda", 1),
        ("sdxl", "--use_torch_compile --inductor_mode max-autotune --unet_channels_last", "cuda", 1),
        ("flux", "--engine diffusers --fuse_qkv --ulysses_degree 2", "cuda", 2),
        ("flux", "--fuse_qkv --data_parallel_degree 2 --workload.batch_size 2", "cuda", 2),
        ("flux", "--tf32 --vae_dtype float32 --compile_vae --vae_channels_last", "cuda", 1),
        ("sdxl", "--tf32", "cuda", 1),  # its VAE decodes in float32
        ("flux", "--use_fbcache --data_parallel_degree 2 --workload.batch_size 2", "cuda", 2),
        ("flux", "--quantization fp8-dynamic --use_fp8_t5_encoder --use_torch_compile", "cuda", 1),
        ("flux", "--attention_backend flash --ring_degree 2", "cuda", 2),
        ("flux", "--attention_backend math --ulysses_degree 2", "cpu", 2),
        ("sd3", "--attention_backend sdpa --use_cfg_parallel", "cpu", 2),
        ("sdxl", "--attention_slicing --vae_tiling --scheduler ddim", "cpu", 1),
        ("hunyuan", "--scheduler dpmsolver++ --ulysses_degree 2", "cuda", 2),
        ("sd3", "--enable_group_offload --scheduler unipc", "cuda", 1),
    ],
)
def test_what_fits_together_is_let_pass(family, words, device, world):
    assert plan_of(family, words, device, world).optimizations


@pytest.mark.parametrize(
    ("installed", "complaint"),
    [
        (None, "needs the package torchao; install it: pip install '{fits}'"),
        ("0.9.0", "does not work with torchao 0.9.0; install one that fits: pip install '{fits}'"),
    ],
)
def test_a_package_that_is_missing_or_does_not_fit_is_named_with_the_versions_that_do(
    monkeypatch, installed, complaint
):
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    (extra,) = pyproject["project"]["optional-dependencies"]["quantization"]
    fits = Requirement(extra)

    def version(package):
        if installed is None:
            raise metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(UserError) as error:
        plan_of("flux", "--quantization int8-weight-only")
    line = str(error.value)
    assert complaint.format(fits=f"{fits.name}{fits.specifier}") in line
    monkeypatch.setattr(metadata, "version", lambda _: "0.15.1")
    assert plan_of("flux", "--quantization int8-weight-only").optimizations.quantization
