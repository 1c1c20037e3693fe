"""Fused projections, channels last, cuDNN and TF32: fewer products, other layouts, same images."""

from collections import Counter

import pytest
import torch
from optimization_batches import FOX
from torch.utils._python_dispatch import TorchDispatchMode

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.call import call_arguments
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.optimizations.backends import backends_record, set_backends
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.engines.optimizations.layouts import layouts_seen, turn_channels_last
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import TINY
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.pipeline import load

LOSSLESS = 1e-5  # of the pixel range, in float32


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func) in ("aten.mm.default", "aten.addmm.default", "aten.bmm.default"):
            self.calls["products"] += 1
        return func(*args, **(kwargs or {}))


def generated(plan_of, cluster, model, *words):
    """Image, matrix products of one generation, effects, bytes of weights."""
    words = ("--workload.inference_steps", "2", "--workload.dtype", "float32", *words)
    engine = load_engine(plan_of(model, *words), cluster)
    with Products() as products:
        image = engine.generate(FOX).images
    effects, held = engine.effects(0), engine.report.facts["weight_bytes"]
    if effects.get("fused_qkv"):
        parts = denoisers(engine.pipeline, engine.plan.spec.family).values()
        linear = sum(isinstance(layer, torch.nn.Linear) for part in parts for layer in part.modules())
        assert effects["fused_qkv"]["linear_layers"] == linear, "of all denoisers together"
    engine.close()
    return image, products.calls["products"], effects, held


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("flux", "--engine diffusers"),
        ("wan2.2", "--engine diffusers"),  # two denoisers, attention to itself and to the text
        *(
            pytest.param(model, words, marks=pytest.mark.full)
            for model, words in [
                ("flux", "--engine xdit"),
                ("flux", "--engine diffusers --quantization int8-weight-only"),
                ("sd3", "--engine diffusers --attention_backend math"),
                ("pixart-alpha", "--engine diffusers --attention_backend math"),
                ("pixart-sigma", "--engine xdit"),
                ("hunyuandit", "--engine diffusers"),
                ("sdxl", "--engine diffusers"),
                ("sd1.5", "--engine diffusers"),
                ("flux2", "--engine diffusers"),
                ("flux2-klein", "--engine diffusers"),
                ("wan", "--engine xdit"),
                ("wan2.2-ti2v", "--engine diffusers --attention_backend math"),
                ("cogvideox", "--engine diffusers"),
                ("cogvideox", "--engine xdit"),
                ("cogvideox", "--engine diffusers --attention_backend math"),
                ("cogvideox-2b", "--engine xdit"),
                ("cogvideox1.5", "--engine diffusers"),
                ("chroma", "--engine diffusers"),
                ("auraflow", "--engine diffusers"),
                ("kolors", "--engine diffusers"),
            ]
        ),
    ],
)
def test_fused_projections_are_fewer_products_of_the_same_image(plan_of, cluster, model, words):
    plain, products, _, held = generated(plan_of, cluster, f"tiny/{model}", *words.split())
    fused, fewer, effects, held_fused = generated(
        plan_of, cluster, f"tiny/{model}", *words.split(), "--fuse_qkv"
    )
    assert float((fused - plain).abs().max()) <= 1e-6, "the same sums, in one product"
    record = effects["fused_qkv"]
    dropped = record["linear_layers_before"] - record["linear_layers"]
    assert record["layers"] > 0 and dropped >= record["layers"]
    # Each dropped layer is a product less in every call of the denoiser, of which there are two at least.
    assert products - fewer >= 2 * dropped
    assert held_fused == held, "the layers that were fused are not kept beside"
    assert optimizations_without_effect(Optimizations(fuse_qkv=True), [effects]) == []


@pytest.mark.full
@pytest.mark.parametrize(
    "model",
    [one.model_id for one in TINY if "diffusers" in one.family.modes and not one.family.fuses_qkv],
)
def test_where_it_is_refused_diffusers_computes_nothing_fused(plan_of, model):
    """Nothing is fused, or layers are whose place the attention goes on to compute one by one."""
    size = ["--workload.height", "256", "--workload.width", "256"] if "hidream" in model else []
    plan = plan_of(model, "--engine", "diffusers", *size)
    pipeline = load(locate(plan), plan, "cpu")
    if model == "tiny/ltx2":  # video and sound have different widths, and attend to each other
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            pipeline.transformer.fuse_qkv_projections()
        return
    if hasattr(pipeline.transformer, "fuse_qkv_projections"):
        pipeline.transformer.fuse_qkv_projections()
    called = []
    for name, part in pipeline.transformer.named_modules():
        if name.rpartition(".")[2] in ("to_qkv", "to_kv", "to_added_qkv", "to_added_kv"):
            part.register_forward_hook(lambda *_: called.append(1))
    pipeline(prompt=["a fox"], **{**call_arguments(plan), "num_inference_steps": 2})
    assert not called


@pytest.mark.parametrize(
    ("model", "words", "part"),
    [
        ("sdxl", "--vae_channels_last --unet_channels_last", "unet"),
        *(
            pytest.param(model, words, part, marks=pytest.mark.full)
            for model, words, part in [
                ("sd1.5", "--unet_channels_last", "unet"),
                ("flux", "--vae_channels_last", "vae"),
                ("sana", "--vae_channels_last", "vae"),
            ]
        ),
    ],
)
def test_channels_last_are_seen_in_what_convolutions_give(plan_of, cluster, model, words, part):
    plain, *_ = generated(plan_of, cluster, f"tiny/{model}")
    image, _, effects, _ = generated(plan_of, cluster, f"tiny/{model}", *words.split())
    assert float((image - plain).abs().max()) <= LOSSLESS
    seen = effects["channels_last"]
    assert seen[part]["channels_last"] == seen[part]["convolutions"] > 10
    optimizations = Optimizations(vae_channels_last="vae" in seen, unet_channels_last="unet" in seen)
    assert optimizations_without_effect(optimizations, [effects]) == []


def test_a_layout_that_is_lost_on_the_way_is_told():
    class Undoing(torch.nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = layer(x.contiguous()).contiguous()
            return x

    layers = [torch.nn.Conv2d(3, 3, 3) for _ in range(4)]
    plain, turned = torch.nn.Sequential(*layers[:2]), torch.nn.Sequential(*layers[2:])
    turn_channels_last(turned, "--vae_channels_last")
    x = torch.randn(1, 3, 16, 16)
    found = layouts_seen({"unet": plain, "vae": turned}, lambda: (plain(x), turned(x)))
    assert found == {
        "unet": {"convolutions": 2, "channels_last": 0},
        "vae": {"convolutions": 2, "channels_last": 2},
    }
    optimizations = Optimizations(vae_channels_last=True, unet_channels_last=True)
    rank = {"channels_last": found, "attention": {"kernels": None}}
    (line,) = optimizations_without_effect(optimizations, [rank])
    assert line.startswith("--unet_channels_last: 0 of 2 convolutions gave channels last")


def test_a_decoder_over_time_has_no_such_layout():
    with pytest.raises(UserError) as error:
        turn_channels_last(torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1)), "--vae_channels_last")
    assert "--vae_channels_last: Sequential convolves over time too" in str(error.value)


@pytest.fixture
def plain_backends():
    settings = [
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_tf32"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name in settings]
    for owner, name in settings:
        setattr(owner, name, False)
    yield
    for owner, name, value in before:
        setattr(owner, name, value)


@pytest.mark.usefixtures("plain_backends")
@pytest.mark.parametrize(
    ("optimizations", "changed"),
    [
        (Optimizations(), set()),
        (Optimizations(cudnn_benchmark=True), {"cudnn_benchmark"}),
        (Optimizations(tf32=True), {"tf32_products", "tf32_convolutions"}),
    ],
)
def test_settings_of_torchs_libraries_are_those_that_were_asked_for(optimizations, changed):
    before = backends_record()
    assert before == dict.fromkeys(before, False)
    set_backends(optimizations)
    assert {name for name, value in backends_record().items() if value} == changed
