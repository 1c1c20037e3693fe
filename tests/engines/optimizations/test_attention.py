"""The asked-for attention is the one that torch's dispatcher sees, in every family and both engines."""

import pytest
import torch
from diffusers.models import attention_dispatch
from optimization_batches import FOX
from result_samples import make_plan

from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.attention import check_gpu, use_backend
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import UserError

FLASH, SOFTMAX = "aten._scaled_dot_product_flash_attention_for_cpu.default", "aten._safe_softmax.default"
# Model -> its attention layers in one call of the denoiser, and of them those with text alone as keys.
LAYERS = {
    "tiny/flux": (8, 0),
    "tiny/sd3": (4, 0),
    "tiny/pixart-alpha": (8, 4),
    "tiny/hunyuandit": (9, 5),
    "tiny/sdxl": (22, 0),
}


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        # Each model once, the two engines in turns; the other pairs carry the mark full.
        pytest.param(model, engine, marks=() if number % 2 == at else pytest.mark.full)
        for number, model in enumerate(LAYERS)
        for at, engine in enumerate(("diffusers", "xdit"))
    ]
    + [("tiny/sd1.5", "diffusers")],
)
def test_math_takes_the_kernels_place(run, exact, model, engine):
    every, kept = LAYERS.get(model, (20, 0))
    bare = exact(model, engine, 2)
    assert bare.effects["attention"]["kernels"] == {FLASH: every}
    ran = run(model, "--engine", engine, "--attention_backend", "math", steps=2)
    expected = {SOFTMAX: every - kept} | ({FLASH: kept} if kept else {})
    assert ran.effects["attention"]["kernels"] == expected
    assert torch.allclose(ran.images[0], bare.images[0], atol=2e-4)


def test_flash_and_sdpa_are_what_the_cpu_does_anyway(run, exact):
    for name in ("flash", "sdpa"):
        ran = run("tiny/flux", "--engine", "diffusers", "--attention_backend", name, steps=2)
        attention = ran.effects["attention"]
        assert (attention["asked"], attention["kernels"], attention["reason"]) == (name, {FLASH: 8}, None)
        assert torch.equal(ran.images[0], exact("tiny/flux", "diffusers", 2).images[0])


def test_a_choice_does_not_leak_into_the_next_model(run):
    run("tiny/sd3", "--engine", "diffusers", "--attention_backend", "math", steps=2)
    ran = run("tiny/flux", "--engine", "diffusers", steps=2)
    assert ran.effects["attention"]["kernels"] == {FLASH: 8}


@pytest.mark.parametrize("name", ["fa2-hub", "fa3-hub", "fa4-hub"])
def test_a_kernel_of_the_hub_gets_every_call_of_the_denoiser(plan_of, cluster, exact, monkeypatch, name):
    """The kernels run on GPUs alone: another function stands for one, in their layout."""
    calls = []

    def kernel(q, k, v, softmax_scale=None, causal=False, **_):
        calls.append(q.shape)
        out = torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), scale=softmax_scale, is_causal=causal
        )
        return out.transpose(1, 2)

    backend = ATTENTION[name].diffusers
    config = attention_dispatch._HUB_KERNELS_REGISTRY[attention_dispatch.AttentionBackendName(backend)]
    for attribute in ("kernel_fn", "wrapped_forward_fn", "wrapped_backward_fn"):
        monkeypatch.setattr(config, attribute, kernel)
    for check in ("is_kernels_available", "is_kernels_version"):
        monkeypatch.setattr(attention_dispatch, check, lambda *_: True)
    words = ("--engine", "diffusers", "--workload.inference_steps", "2", "--workload.dtype", "float32")
    engine = load_engine(plan_of("tiny/flux", *words), cluster)
    use_backend(engine.pipeline.transformer, backend)
    image = engine.generate(FOX).images
    engine.close()
    assert len(calls) == 2 * 8 and calls[0][2:] == (4, 16) and calls[0][1] > 16, "tokens before heads"
    assert torch.allclose(image, exact("tiny/flux", "diffusers", 2).images[0], atol=1e-5)


def test_a_kernel_that_cannot_be_had_is_one_line(plan_of, cluster):
    engine = load_engine(plan_of("tiny/flux", "--engine", "diffusers"), cluster)
    with pytest.raises(UserError, match=r"diffusers' attention _flash_3_hub cannot be used: .*kernels"):
        use_backend(engine.pipeline.transformer, "_flash_3_hub")
    engine.close()


def test_a_kernel_is_refused_on_a_gpu_that_it_is_not_built_for(monkeypatch):
    plan = make_plan(device="cuda", optimizations=Optimizations(attention="fa3-hub"))
    for capability, fits in (((9, 0), True), ((8, 9), False), ((10, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        if fits:
            check_gpu(plan)
        else:
            with pytest.raises(UserError, match=rf"capability 9.x, and this one has {capability[0]}"):
                check_gpu(plan)


def judged(name, *ranks):
    """Complaints about a kernel, from operators and layers of each rank."""
    effects = [
        {"attention": {"kernels": kernels, "in_layers": kernels, "layers": layers}}
        for kernels, layers in ranks
    ]
    return optimizations_without_effect(Optimizations(attention=name), effects)


def test_a_kernel_that_did_not_run_is_named():
    cudnn = {"aten._scaled_dot_product_cudnn_attention.default": 57}
    (line,) = judged("cudnn", ({FLASH: 8}, 8))
    assert "cudnn was not used" in line and "flash_attention_for_cpu" in line
    assert judged("cudnn", (cudnn, 57)) == []
    assert judged("cudnn", (None, 57)) == []
    (line,) = judged("cudnn", (cudnn, 57), ({FLASH: 57}, 57))
    assert "was not used" in line, "one rank of two took another kernel"
    (line,) = judged("cudnn", ({**cudnn, FLASH: 1}, 58))
    assert "was used in 57 of 58 layers" in line
    (line,) = judged("fa3", ({"flash_attn._flash_attn_forward.default": 57}, 57))
    assert "fa3 was not used" in line
    assert judged("fa2", ({"flash_attn._flash_attn_forward.default": 57}, 57)) == []


def test_the_kernel_of_other_layers_does_not_count(run):
    """HunyuanDiT's cross-attention keeps torch's own kernel, whatever is asked for."""
    ran = run("tiny/hunyuandit", "--engine", "diffusers", "--attention_backend", "math", steps=2)
    attention = ran.effects["attention"]
    assert attention["kernels"] == {SOFTMAX: 4, FLASH: 5}
    assert attention["in_layers"] == {SOFTMAX: 4}
    efficient = "aten._scaled_dot_product_efficient_attention.default"
    attention = {"kernels": {efficient: 5, FLASH: 4}, "in_layers": {FLASH: 4}, "layers": 4}
    asked = Optimizations(attention="efficient")
    assert "was not used" in optimizations_without_effect(asked, [{"attention": attention}])[0]


def test_every_part_says_what_ran(run):
    ran = run("tiny/sd3", "--engine", "diffusers", "--attention_backend", "math", steps=2)
    attention = ran.effects["attention"]
    assert (attention["library"], attention["told"], attention["layers"]) == ("diffusers", "_native_math", 4)
    parts = attention["parts"]
    assert set(parts) == {"text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"}
    assert parts["transformer"] == {"kernel": "math", "operators": {SOFTMAX: 4}, "reason": None}
    assert parts["vae"]["kernel"] == "flash", "the option is the denoiser's"
    assert all(parts[name]["operators"] for name in parts if name.startswith("text"))
