"""Language models as text encoders: which parts run, what is counted and held, what offloading moves."""

from __future__ import annotations

import pytest
import torch
from optimization_batches import FOX, words_of
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.counted import flops_as_run
from mlenergy.diffusion.engines.optimizations.memory import offload
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.models.architectures.reader import architecture
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.pipeline import load

CPU = Cluster(Rank(), torch.device("cpu"), None)
QUICK = {"tiny/qwen-image"}
# Parts of an encoder that are held and that no prompt runs: towers for images, which a text has none of.
IDLE = {
    "tiny/flux2": ("text_encoder.model.vision_tower", "text_encoder.model.multi_modal_projector"),
    "tiny/flux2-klein": (),
    "tiny/qwen-image": ("text_encoder.model.visual",),
    "tiny/z-image": (),
    "tiny/sana": (),
    "tiny/lumina2": (),
    # ByT5 reads quoted words alone.
    "tiny/hunyuanimage": ("text_encoder.model.visual", "text_encoder_2"),
    "tiny/hidream": (),
    "tiny/chroma": (),
    "tiny/auraflow": (),
    "tiny/kolors": ("text_encoder.output_layer",),  # ChatGLM's head: its hidden states are read
    "tiny/cogview4": (),
}
MODELS = [pytest.param(model, marks=() if model in QUICK else pytest.mark.full) for model in IDLE]


def plan_of(model, *words):
    size = ["--workload.height", "256", "--workload.width", "256"] if model == "tiny/hidream" else []
    more = ["--workload.inference_steps", "1", "--workload.dtype", "float32", "--engine", "diffusers"]
    return make_plan(
        parse_args(words_of(model, [*more, *size, *words])), resolve_model(model), 1, "cpu", "a CPU"
    )


def owners(engine):
    """Name -> module of every part of the text encoders that owns parameters."""
    encoders = engine.plan.spec.family.text_encoders
    return {
        f"{encoder}.{name}".rstrip("."): part
        for encoder in encoders
        for name, part in engine.components()[encoder].named_modules()
        if any(True for _ in part.parameters(recurse=False))
    }


@pytest.mark.parametrize("model", MODELS)
def test_only_the_language_model_runs_and_all_of_it_is_held(model):
    engine = load_engine(plan_of(model), CPU)
    ran, lengths = set(), {}
    parts = owners(engine)
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
    for name in engine.plan.spec.family.text_encoders:
        encoder = engine.components()[name]
        encoder.register_forward_pre_hook(
            lambda _, args, options, name=name: lengths.setdefault(name, []).append(
                tuple((options.get("input_ids") if "input_ids" in options else args[0]).shape)
            ),
            with_kwargs=True,
        )
    stages = engine.plan.spec.family.stages
    with StageProbe(engine.components(), stages, 1, torch.device("cpu")) as probe:
        probe.open()
        with FlopCounterMode(display=False) as counter:
            engine.generate(FOX)
        spans = probe.spans()
    # T5's table is in two places, of which one is called.
    used = {id(p) for name in ran for p in parts[name].parameters(recurse=False)}
    idle = {
        name for name, part in parts.items() if not used & {id(p) for p in part.parameters(recurse=False)}
    }
    expected = {name for name in parts if name.startswith(IDLE[model])} if IDLE[model] else set()
    assert idle == expected
    calls = [shape for shapes in lengths.values() for shape in shapes]
    assert len(spans.intervals["text_encode"]) == len(calls) > 0
    words = [word.rpartition(".")[2] for word in IDLE[model]]
    assert not [name for name in counter.get_flop_counts() if any(f".{word}" in name for word in words)]
    held = engine.report.facts["weight_bytes"]
    for name in engine.plan.spec.family.text_encoders:
        assert held[name] == {"float32": sum(p.nbytes for p in engine.components()[name].parameters())}
    counted = flops_as_run(engine.components(), stages, lambda: engine.generate(FOX))
    assert 0 < counted["text_encode"] < counter.get_total_flops()
    if engine.plan.spec.family.has_cost_model:
        cost = costs_of(architecture(model))["text_encoder"]
        predicted = sum(
            cost.flops_at(rows, 0, tokens) for rows, tokens in lengths["text_encoder"][: len(calls)]
        )
        assert predicted == pytest.approx(counted["text_encode"], rel=1e-6)
        assert cost.parameters * 4 == sum(held["text_encoder"].values())
    engine.close()


@pytest.mark.full
def test_byt5_runs_where_words_are_quoted():
    engine = load_engine(plan_of("tiny/hunyuanimage"), CPU)
    calls = []
    engine.components()["text_encoder_2"].register_forward_hook(lambda *_: calls.append(1))
    engine.generate(FOX)
    assert calls == []
    engine.generate(Batch(('a sign that says "open"',), (1,)))
    assert calls == [1]
    engine.close()


def drawn(pipeline, plan):
    generator = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 2, "output_type": "pt", "generator": generator}
    if plan.spec.family.bins_resolution:
        options["use_resolution_binning"] = False
    return pipeline(prompt="a red fox", height=plan.height_px, width=plan.width_px, **options).images


@pytest.mark.parametrize("model", MODELS)
def test_offloading_takes_every_part_of_every_encoder_with_it(model):
    """The CPU stands for the GPU: hooks are placed alike; test_on_gpu.py sees weights leave a real one."""
    plan = plan_of(model)
    bare = drawn(load(locate(plan), plan, "cpu"), plan)
    assert torch.isfinite(bare).all()
    for kind in ("model", "group"):
        pipeline = load(locate(plan), plan, "cpu")
        offload(pipeline, kind, torch.device("cpu"))
        assert torch.allclose(drawn(pipeline, plan), bare, atol=1e-5), kind
        for name in plan.spec.family.stages:
            part = getattr(pipeline, name)
            hooks = [getattr(module, "_diffusers_hook", None) for module in part.modules()]
            hooked = any(hook and hook.get_hook("group_offloading") for hook in hooks)
            assert hooked if kind == "group" else hasattr(part, "_hf_hook"), (kind, name)
    pipeline = load(locate(plan), plan, "cpu")
    offload(pipeline, "sequential", torch.device("cpu"))
    for name in plan.spec.family.stages:
        for module in getattr(pipeline, name).modules():
            own = list(module.parameters(recurse=False))
            assert all(parameter.is_meta for parameter in own), name
            assert not own or hasattr(module, "_hf_hook"), (name, type(module).__name__)


@pytest.mark.parametrize("model", sorted(IDLE))
def test_what_stores_a_t5_in_fp8_acts_on_a_t5_or_is_refused(model):
    from mlenergy.diffusion.errors import UserError

    family = resolve_model(model).family
    if family.has_t5:
        assert plan_of(model, "--use_fp8_t5_encoder").optimizations.fp8_t5_encoder
        return
    with pytest.raises(UserError, match=f"{family.name} has no T5 text encoder; leave it out"):
        plan_of(model, "--use_fp8_t5_encoder")


@pytest.mark.parametrize("model", sorted(IDLE))
def test_the_blocks_of_every_denoiser_are_known(model):
    """Quantization, compilation and caches work on them: a list that is missed is left as it is."""
    from mlenergy.diffusion.engines.optimizations.blocks import computing_blocks
    from mlenergy.diffusion.weights.random.modules import empty_module

    denoiser = empty_module(architecture(model).denoiser)
    lists = [part for part in denoiser.children() if isinstance(part, torch.nn.ModuleList) and len(part)]
    blocks = {id(block) for block in computing_blocks(denoiser)}
    inside = sum(p.numel() for block in computing_blocks(denoiser) for p in block.parameters())
    projections = (
        "ProjectionText",
        "TextProjection",
        "CaptionProjection",
    )  # HiDream's list of them is no block
    missed = [type(part[0]).__name__ for part in lists if id(part[0]) not in blocks]
    if architecture(model).denoiser.name == "transformer":
        assert [name for name in missed if name not in projections] == []
    assert inside > 0
