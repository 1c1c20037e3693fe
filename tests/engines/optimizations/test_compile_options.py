"""How things are compiled: what reaches torch.compile, what is counted, and where compiled code is kept."""

import os
from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines.optimizations.compile import CompileWork, compile_arguments
from mlenergy.diffusion.engines.optimizations.compile_cache import CompileCache, key_of
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import UserError

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch, tmp_path):
    torch._dynamo.reset()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, default_cache_dir())  # back to what it was afterwards


@pytest.mark.parametrize(
    ("changes", "denoiser", "other"),
    [
        ({}, {}, {}),
        (
            {"inductor_mode": "max-autotune-no-cudagraphs"},
            {"max_autotune": True, "coordinate_descent_tuning": True},
            {"max_autotune": True, "coordinate_descent_tuning": True},
        ),
        ({"inductor_mode": "reduce-overhead"}, {"triton.cudagraphs": True}, {}),
        (
            {"inductor_mode": "max-autotune"},
            {"max_autotune": True, "coordinate_descent_tuning": True, "triton.cudagraphs": True},
            {"max_autotune": True, "coordinate_descent_tuning": True},
        ),
        ({"inductor_coordinate_descent": True}, *[{"coordinate_descent_tuning": True}] * 2),
        ({"inductor_conv_1x1_as_mm": True}, *[{"conv_1x1_as_mm": True}] * 2),
        ({"inductor_epilogue_fusion": False}, *[{"epilogue_fusion": False}] * 2),
    ],
)
def test_the_compiler_is_given_what_was_asked_for(monkeypatch, changes, denoiser, other):
    given = []
    monkeypatch.setattr(torch, "compile", lambda part, **options: given.append(options) or part)
    optimizations = Optimizations(compile_mode="whole", compile_vae=True, **changes)
    work = CompileWork(
        optimizations, "a GPU", {"transformer": torch.nn.Linear(1, 1)}, {"vae": torch.nn.Linear(1, 1)}
    )
    assert [one["options"] for one in given] == [denoiser, other]
    assert [(one["fullgraph"], one["dynamic"]) for one in given] == [(False, None)] * 2
    assert work.record(0)["inductor"] == {"mode": optimizations.inductor_mode, "options": denoiser}
    assert set(denoiser) <= set(torch._inductor.list_options())


def test_whole_graphs_are_for_the_denoiser_and_fixed_shapes_for_all():
    optimizations = Optimizations(compile_fullgraph=True, compile_static_shapes=True)
    for is_denoiser in (True, False):
        arguments = compile_arguments(optimizations, is_denoiser=is_denoiser)
        assert (arguments["fullgraph"], arguments["dynamic"]) == (is_denoiser, False)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) + 1


class Broken(Block):
    def forward(self, x):
        y = self.linear(x)
        torch._dynamo.graph_break()
        return y + 1


@pytest.mark.parametrize(("static", "recompilations"), [(True, 2), (False, 1)])
def test_graphs_breaks_and_recompilations_are_counted(monkeypatch, static, recompilations):
    compile_ = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda part, dynamic, fullgraph, **_: compile_(
            part, backend="eager", dynamic=dynamic, fullgraph=fullgraph
        ),
    )
    denoiser, decoder = Broken(), Block()
    optimizations = Optimizations(compile_mode="whole", compile_vae=True, compile_static_shapes=static)
    work = CompileWork(
        optimizations, "a CPU", {"transformer": denoiser}, {"vae": decoder, "text_encoder": Block()}
    )
    denoiser(torch.ones(2, 4))
    for rows in (2, 3, 4):  # the first two lengths have code of their own, or all those after the first
        decoder(torch.ones(rows, 4))
    record = work.record(0)
    assert record["graphs_of_others"] == {"vae": 1 + recompilations, "text_encoder": 0}
    assert record["graphs"] == 2 + 1 + recompilations, "the break makes two of the denoiser's"
    assert record["graph_breaks"] == 1 and record["recompilations"] == recompilations
    rank = {"compile": record, "attention": {"kernels": None}}
    assert optimizations_without_effect(optimizations, [rank]) == []
    encoders = Optimizations(compile_text_encoders=True)
    assert optimizations_without_effect(encoders, [rank]) == [
        "--compile_text_encoders compiled no graph; leave it out"
    ]
    alone = {**record, "graphs": 1 + recompilations}  # all of them the decoder's
    assert (
        "--use_torch_compile compiled no graph"
        in optimizations_without_effect(optimizations, [{**rank, "compile": alone}])[0]
    )


def test_code_that_torch_compiles_no_more_is_told(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **_: compile_(part, backend="eager", dynamic=False))
    denoiser, optimizations = Block(), Optimizations(compile_mode="whole", compile_static_shapes=True)
    work = CompileWork(optimizations, "a CPU", {"transformer": denoiser})
    for rows in range(2, 2 + torch._dynamo.config.recompile_limit):
        denoiser(torch.ones(rows, 4))
    rank = {"compile": work.record(0), "attention": {"kernels": None}}
    assert rank["compile"]["given_up"] == 0 and optimizations_without_effect(optimizations, [rank]) == []
    denoiser(torch.ones(99, 4))
    again = {**rank, "compile": work.record(0)}
    (line,) = optimizations_without_effect(optimizations, [rank, again])
    assert line.startswith("--use_torch_compile: torch compiled 1 functions so often that it gave up")


def test_a_break_in_a_denoiser_that_has_to_be_one_graph_is_an_error():
    denoiser = Broken()
    CompileWork(
        Optimizations(compile_mode="whole", compile_fullgraph=True), "a CPU", {"transformer": denoiser}
    )
    with pytest.raises(UserError) as error:
        denoiser(torch.ones(2, 4))
    assert "--compile_fullgraph: the denoiser is not one graph" in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith("leave it out")


def test_compiled_code_is_found_again_in_the_folder_of_these_versions(tmp_path):
    kept = []
    for hits, misses in ((0, 1), (1, 0)):
        torch._dynamo.reset()
        block = Block()
        work = CompileWork(Optimizations(compile_mode="whole"), "NVIDIA H200", {"transformer": block})
        with torch.no_grad():
            block(torch.ones(2, 4))
        record = work.record(0)["cache"]
        assert (record["hits"], record["misses"]) == (hits, misses)
        kept.append(record["folder"])
    assert set(kept) == {str(tmp_path / "mlenergy" / "compiled" / key_of("NVIDIA H200"))}
    assert list(Path(kept[0]).iterdir())


def test_a_folder_that_is_not_kept_is_empty_and_goes():
    cache = CompileCache("NVIDIA H200", is_kept=False)
    folder = Path(os.environ[VARIABLE])
    assert list(folder.iterdir()) == [] and cache.record()["folder"] is None
    del cache
    assert not folder.exists()


def test_the_users_own_folder_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert CompileCache("NVIDIA H200", is_kept=True).record()["folder"] == str(tmp_path / "own")


def test_folders_differ_by_versions_and_device():
    version = torch.__version__.replace("+", "_")
    assert f"torch-{version}" in key_of("NVIDIA H200") and key_of("NVIDIA H200").endswith("+NVIDIA_H200")
    assert len({key_of(name) for name in ("NVIDIA H200", "NVIDIA H100")}) == 2


def test_what_a_recorded_graph_gives_stays_when_it_is_replayed(monkeypatch):
    buffer, begun = torch.zeros(2), []
    monkeypatch.setattr(torch, "compile", lambda part, **_: part)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))

    class Replayed(torch.nn.Module):
        def forward(self, x):
            return (buffer.copy_(x),)

    denoiser = Replayed()
    CompileWork(
        Optimizations(compile_mode="whole", inductor_mode="reduce-overhead"),
        "a GPU",
        {"transformer": denoiser},
    )
    first, second = (denoiser(torch.full((2,), float(n)))[0] for n in (1, 2))
    assert first.tolist() == [1, 1] and second.tolist() == [2, 2] and len(begun) == 2


def test_graphs_that_were_not_recorded_are_told():
    optimizations = Optimizations(compile_mode="whole", inductor_mode="reduce-overhead")
    record = {"graphs": 1, "graphs_of_others": {}, "cuda_graph_skips": 1}
    lines = optimizations_without_effect(optimizations, [{"compile": record, "attention": {"kernels": None}}])
    assert len(lines) == 1 and "recorded no CUDA graph for 1" in lines[0]
    assert (
        optimizations_without_effect(
            optimizations,
            [{"compile": {**record, "cuda_graph_skips": 0}, "attention": {"kernels": None}}],
        )
        == []
    )
