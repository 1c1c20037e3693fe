"""Wan 2.2's two denoisers: the noise level decides which one runs, and options act on both."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.models.resolve import resolve_model

MODEL = "tiny/wan2.2"
BATCH = Batch(("a fox in the snow",), (7,))


def engine_with(*words: str) -> Any:
    work = ["workload:t2v", "--workload.model_id", MODEL, "--workload.num_frames", "5"]
    own = [word for word in words if word.startswith("--workload")]
    args = parse_args([*(word for word in words if word not in own), *work, *own])
    return load_engine(
        make_plan(args, resolve_model(MODEL), 1, "cpu", "cpu"), Cluster(Rank(), torch.device("cpu"), None)
    )


def calls(engine: Any) -> Counter[str]:
    """Calls of each denoiser in one generation."""
    found: Counter[str] = Counter()
    handles = [
        engine.components()[name].register_forward_pre_hook(lambda *_, name=name: found.update([name]))
        for name in ("transformer", "transformer_2")
    ]
    engine.generate(BATCH)
    for handle in handles:
        handle.remove()
    return found


def test_the_boundary_of_the_plan_decides_which_denoiser_runs() -> None:
    engine = engine_with("--engine=diffusers")
    # Noise levels at a shift of 3 in four steps: 1000, 900, 750 and 500 of 1000, about; two calls a step.
    assert engine.plan.boundary_ratio == 0.875
    assert calls(engine) == {"transformer": 4, "transformer_2": 4}
    low = engine_with("--engine=diffusers", "--workload.boundary_ratio=0.6")
    assert calls(low) == {"transformer": 6, "transformer_2": 2}
    own = replace(low.plan, guidance_scale_2=9.0)
    first = low.generate(BATCH).images
    low.plan = own
    assert not torch.allclose(low.generate(BATCH).images, first, atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [("--layerwise_fp8",), pytest.param(("--quantization=int8-weight-only",), marks=pytest.mark.full)],
)
def test_weights_of_both_are_stored_in_fewer_bits(words: tuple[str, ...]) -> None:
    engine = engine_with("--engine=diffusers", *words)
    engine.generate(BATCH)
    weights = engine.effects(0)["weights"]
    assert set(weights) == {"transformer", "transformer_2"}
    assert all(record["bytes"] < record["bytes_before"] for record in weights.values())


def test_attention_of_both_is_the_one_that_is_asked_for() -> None:
    engine = engine_with("--engine=diffusers", "--attention_backend=math")
    engine.generate(BATCH)
    seen = engine.effects(0)["attention"]
    assert seen["layers"] == 6 and sum(seen["in_layers"].values()) >= 6  # two in each of three blocks
    for name in ("transformer", "transformer_2"):
        assert re.search("softmax", str(seen["parts"][name]["operators"])), name


@pytest.mark.parametrize("mode", ["regional", pytest.param("whole", marks=pytest.mark.full)])
def test_compiled_code_runs_in_both(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Blocks of one class share their code, so that graphs are made once and run in both."""
    now: list[str] = []
    ran: Counter[str] = Counter()

    def backend(graph: Any, _inputs: Any) -> Any:
        def counted(*values: Any) -> Any:
            ran[now[-1]] += 1
            return graph.forward(*values)

        return counted

    traced_only = partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", lambda *a, options=None, **k: traced_only(*a, **k))
    torch._dynamo.reset()
    engine = engine_with("--engine=diffusers", "--use_torch_compile", f"--compile_mode={mode}")
    for name in ("transformer", "transformer_2"):
        engine.components()[name].register_forward_pre_hook(lambda *_, name=name: now.append(name))
    engine.generate(BATCH)
    blocks = 3 if mode == "regional" else 1
    found = engine.effects(0)["compile"]
    assert found["regions_by_denoiser"] == {"transformer": blocks, "transformer_2": blocks}
    assert found["graphs"] >= 1
    assert ran["transformer"] == ran["transformer_2"] >= 4 * blocks  # two steps of each, with guidance


def test_queries_keys_and_values_of_both_are_fused() -> None:
    engine = engine_with("--engine=diffusers", "--fuse_qkv")
    engine.generate(BATCH)
    # In each of three blocks: three layers become one where a block attends to itself, two where to the text.
    assert engine.effects(0)["fused_qkv"]["layers"] == 2 * 3 * 2
    for name in ("transformer", "transformer_2"):
        own = {path.rpartition(".")[2] for path, _ in engine.components()[name].blocks.named_modules()}
        assert {"to_qkv", "to_kv"} <= own and not {"to_k", "to_v"} & own, name
    record = engine.effects(0)["fused_qkv"]
    assert record["linear_layers_before"] - record["linear_layers"] == 2 * 3 * (2 + 1)
