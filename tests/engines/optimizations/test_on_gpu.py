"""Optimizations that need an NVIDIA GPU: kernels by name, weights that leave the GPU, float8 products."""

import pytest
import torch
from optimization_batches import FOX, words_of

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
HALF = ["--workload.dtype", "bfloat16"]


def generate(*words, engine="diffusers", model="tiny/flux"):
    """Image on the host, the record of effects, and what has no effect."""
    cluster = Cluster(Rank(), torch.device("cuda", 0), None)
    dtype = [] if "--workload.dtype" in words else HALF
    steps = ["--workload.inference_steps", "2"]
    args = parse_args(words_of(model, ["--engine", engine, *words, *dtype, *steps]))
    plan = make_plan(args, resolve_model(model), 1, "cuda", "a GPU")
    loaded = load_engine(plan, cluster)
    image = loaded.generate(FOX).images.float().cpu()
    effects = loaded.effects(0)
    loaded.close()
    return image, effects, optimizations_without_effect(plan.optimizations, [effects])


@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn", "math"])
def test_the_kernel_that_is_asked_for_runs(name):
    image, effects, idle = generate("--attention_backend", name)
    assert idle == [], effects["attention"]
    assert torch.allclose(image, generate()[0], atol=0.06)


@pytest.mark.parametrize("option", ["model_cpu", "sequential_cpu", "group"])
def test_offloaded_weights_are_not_on_the_gpu_between_two_images(option):
    image, effects, _ = generate(f"--enable_{option}_offload")
    assert effects["resident_bytes"] < 100_000
    assert torch.allclose(image, generate()[0], atol=0.02)


@pytest.mark.parametrize("option", ["model_cpu", "sequential_cpu", "group"])
@pytest.mark.parametrize(
    "model", ["tiny/qwen-image", "tiny/flux2", "tiny/z-image", "tiny/kolors", "tiny/cogview4"]
)
def test_language_models_leave_the_gpu_between_two_images(model, option):
    image, effects, _ = generate(f"--enable_{option}_offload", model=model)
    assert effects["resident_bytes"] < 100_000
    assert torch.allclose(image, generate(model=model)[0], atol=0.02)


def test_float8_products():
    image, effects, idle = generate("--quantization", "fp8-dynamic")
    assert idle == [] and "float8_e4m3fn" in effects["weights"]["transformer"]["bytes_by_dtype"]
    assert torch.isfinite(image).all()


def test_compiled_blocks_with_a_cache():
    words = ["--use_torch_compile", "--use_fbcache", "--cache_threshold", "0.9"]
    _, effects, idle = generate(*words)
    assert idle == [] and effects["compile"]["graphs"] >= 2


@pytest.mark.parametrize(
    "words",
    [
        *("--fuse_qkv", "--vae_channels_last --cudnn_benchmark", "--compile_vae", "--compile_text_encoders"),
        "--use_torch_compile --inductor_mode max-autotune-no-cudagraphs --compile_fullgraph",
        "--use_torch_compile --compile_mode whole --inductor_mode reduce-overhead",
    ],
)
def test_what_is_exact_acts_and_leaves_the_image(words):
    image, effects, idle = generate(*words.split())
    assert idle == [], effects
    assert torch.allclose(image, generate()[0], atol=0.06)


def test_tf32_changes_float32_products_a_little():
    words = ("--workload.dtype", "float32")
    exact = generate(*words)[0]
    try:
        image, effects, _ = generate(*words, "--tf32")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert effects["backends"]["tf32_products"] is True
    assert 0 < float((image - exact).abs().max()) < 0.05


@pytest.mark.parametrize("name", ["fa2-hub", "fa3-hub", "fa4-hub"])
def test_a_built_kernel_of_the_hub_runs_or_is_refused_with_the_reason(name):
    """Without the package, the network, or on a GPU that it is not built for: one line."""
    try:
        image, effects, idle = generate("--attention_backend", name)
    except UserError as error:
        assert "\n" not in str(error)
        pytest.skip(str(error))
    assert idle == [], effects["attention"]
    assert torch.allclose(image, generate()[0], atol=0.06)
