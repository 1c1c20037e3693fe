"""The searched combinations, the pruned ones, and their order: by the real plan of FLUX.1-dev."""

from __future__ import annotations

import pytest
from tune_bench import FLUX, H200, space_of

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.argv import to_argv
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.names import identity
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.options import read_command
from mlenergy.diffusion.tune.settings import options_of
from mlenergy.diffusion.tune.space import axes_of

NARROW = ["--batch_sizes", "1", "--attention_backends", "cudnn", "--compile", "off"]
FOUR = Machine("cuda", "NVIDIA H200", 4, 141.0)
PIXART = ["workload:t2i", "--workload.model_id", "PixArt-alpha/PixArt-XL-2-1024-MS"]


def degrees(plan: Plan) -> tuple[int, ...]:
    p = plan.parallel
    return p.data, p.cfg, p.pipefusion, p.ring, p.ulysses, p.tensor


def test_all_degrees_of_all_devices_and_of_fewer() -> None:
    found = space_of(NARROW, FOUR)
    ways = [degrees(one.plan) for one in found.candidates]
    assert len(set(ways)) == len(ways)
    assert {one.plan.parallel.world_size for one in found.candidates} == {1, 2, 4}
    assert {(1, 1, 1, 1, 4, 1), (1, 1, 1, 2, 2, 1), (1, 1, 1, 1, 2, 1), (1, 1, 1, 1, 1, 1)} <= set(ways)
    # Without a forecast, most devices first, by the plan's guess; one step on the axis of devices is as far
    # as one of degrees.
    found = space_of(NARROW, Machine("cuda", "NVIDIA X1000", 4, 141.0))
    assert "no data sheet of a GPU 'NVIDIA X1000' is known" in str(found.forecast_reason)
    assert found.candidates[0].plan.parallel.world_size == 4
    guesses = {one.plan.parallel: one.guess for one in found.candidates}
    assert guesses[found.candidates[0].plan.parallel] == min(g for g in guesses.values() if g is not None)


def test_guidance_is_shared_by_two_at_most() -> None:
    asked = read_command([*NARROW, *PIXART])
    axes = axes_of(asked, parse_args(asked.words), 4)
    assert {way["cfg"] for way in axes.degrees} == {1, 2}


def test_every_axis_is_met_early() -> None:
    found = space_of(["--attention_backends", "sdpa", "cudnn", "--compile", "off", "on"])
    early = [one.plan for one in found.candidates[:6]]
    assert {plan.parallel.world_size for plan in early} == {1, 2}
    assert len({plan.batch_size for plan in early}) > 1
    assert {plan.optimizations.attention for plan in early} == {"sdpa", "cudnn"}
    assert {plan.optimizations.compile_mode for plan in early} == {None, "regional"}


def test_what_the_plan_refuses_is_pruned_with_its_own_line() -> None:
    words = ["--batch_sizes", "1", "--compile", "off", "on", "--attention_backends", "cudnn", "sdpa"]
    found = space_of(words)
    assert found.pruned
    # The same combination, asked of the benchmark itself.
    ring = ["--ring_degree", "2", "--attention_backend", "sdpa", "--device", "cpu"]
    with pytest.raises(UserError) as refused:
        plan_from([*ring, *FLUX], None, "x")
    on_cpu = space_of(words, Machine("cpu", "CPU", 2))
    assert str(refused.value) in {one.reason for one in on_cpu.pruned}
    labels = {one.label: one.reason for one in found.pruned}
    assert "cannot be shared evenly by 2 data-parallel groups" in labels["data 2, batch 1"]
    assert "cannot share a sequence" in labels["2 x xdit, ring 2, batch 1, sdpa attention"]
    assert "was not tried with" in labels["2 x xdit, tensor 2, batch 1, cudnn attention, compiled"]
    # Nothing is both.
    assert not set(labels) & {one.label for one in found.candidates}


def test_a_batch_that_memory_cannot_hold_is_pruned() -> None:
    small = Machine("cuda", "NVIDIA L40S", 1, 36.0)
    words = [*NARROW[2:], "--batch_sizes", "1", "8"]
    found = space_of(words, small)
    assert [one.plan.batch_size for one in found.candidates] == [1]
    [too_large] = found.pruned
    assert too_large.label == "1 process, batch 8"
    assert too_large.reason.startswith("it needs about 3") or too_large.reason.startswith("it needs about 4")
    assert too_large.reason.endswith("GiB of each GPU's memory, and there are 36")
    # Where weights wait in host memory, the estimate says nothing.
    offloaded = space_of([*words, "--enable_model_cpu_offload"], small)
    assert [one.plan.batch_size for one in offloaded.candidates] == [1, 8]


def test_approximate_degrees_only_where_they_are_asked_for() -> None:
    assert not any(one.plan.parallel.pipefusion > 1 for one in space_of(NARROW).candidates)
    assert any("--approximate" in one.reason for one in space_of(NARROW).pruned)
    assert any(one.plan.parallel.pipefusion > 1 for one in space_of([*NARROW, "--approximate"]).candidates)


def test_what_is_fixed_stays_fixed() -> None:
    found = space_of(["--ulysses_degree", "2", "--attention_backend=cudnn", "--use-torch-compile"], FOUR)
    assert {one.plan.parallel.ulysses for one in found.candidates} == {2}
    assert {one.plan.parallel.world_size for one in found.candidates} == {2, 4}
    assert {one.plan.optimizations.attention for one in found.candidates} == {"cudnn"}
    assert {one.plan.optimizations.compile_mode for one in found.candidates} == {"regional"}
    assert {one.plan.batch_size for one in found.candidates} == {1, 2, 4, 8}
    fixed = space_of(
        ["--degrees", "ulysses=2", "--no-use-torch-compile"], model=[*FLUX, "--workload.batch-size=3"]
    )
    assert {one.plan.batch_size for one in fixed.candidates} == {3}
    assert {one.plan.optimizations.compile_mode for one in fixed.candidates} == {None}


def test_named_values_are_searched_and_equal_ones_once() -> None:
    words = ["--degrees", "cfg=2", "ulysses=1", "--batch_sizes", "2", "--attention_backends", "auto"]
    limits = ["--power_limits_w", "none", "400", "500.5"]
    found = space_of([*words, "--compile", "on", "regional", *limits], model=PIXART)
    assert [degrees(one.plan)[1] for one in found.candidates if one.plan.power_limit_w is None] == [2, 1]
    assert {one.plan.power_limit_w for one in found.candidates} == {None, 400.0, 500.5}
    assert len(found.candidates) == 6


def test_a_backend_of_its_own_choice_where_no_named_one_runs() -> None:
    found = space_of(
        ["--degrees", "ulysses=1", "--batch_sizes", "1", "--compile", "off"], Machine("mps", "M4", 1)
    )
    assert [one.plan.optimizations.attention for one in found.candidates] == ["auto"]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_command_of_a_candidate_makes_its_plan(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(device, "somewhere", 4)  # type: ignore[arg-type]
    words = ["--idle_s", "0.5", "--energy_gpus", "0", "1", "--compile", "off", "whole", "--batch_sizes", "2"]
    prompts = [
        "--workload.negative_prompt=--a b",
        "--workload.dataset",
        "bundled",
        "--workload.guidance_scale",
        "3",
    ]
    found = space_of(words, machine, [*PIXART, *prompts])
    assert len(found.candidates) >= 30
    monkeypatch.setattr(
        "mlenergy.diffusion.config.resolve.detect_device",
        lambda preference: (machine.device, machine.device_name),
    )
    for one in found.candidates[::8]:
        args, plan = plan_from(to_argv(options_of(one.args, one.plan)), None, "x")
        assert identity(plan) == identity(one.plan)
        assert args.idle_s == 0.5


def test_the_command_of_a_candidate_makes_videos_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wan = ["workload:t2v", "--workload.model_id", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"]
    frames = ["--workload.num_frames", "41", "--workload.guidance_scale_2", "2"]
    found = space_of(["--batch_sizes", "1", "--compile", "off"], FOUR, [*wan, *frames])
    assert {one.plan.parallel.cfg for one in found.candidates} == {1, 2}
    monkeypatch.setattr(
        "mlenergy.diffusion.config.resolve.detect_device", lambda preference: (FOUR.device, FOUR.device_name)
    )
    for one in found.candidates[::4]:
        _, plan = plan_from(to_argv(options_of(one.args, one.plan)), None, "x")
        assert identity(plan) == identity(one.plan) and plan.makes_video
        assert (plan.num_frames, plan.guidance_scale_2) == (41, 2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--batch_sizes", "0"], "--batch_sizes 0 is too small; use 1 or more; see mlenergy tune --help"),
        (["--budget_s", "inf"], "--budget_s takes a finite number, not 'inf'"),
        (["--degrees", "ulises=2"], "write such as ulysses=2,cfg=2 with some of data, cfg"),
        (["--degrees", "auto", "ring=2"], "--degrees takes auto or a list of degrees, not both"),
        (["--degrees", "cfg=4"], "guidance has two halves; use cfg=2"),
        (["--attention_backends", "fast"], "sage, not 'fast'; did you mean flash? See mlenergy tune --help"),
        (
            ["--ulysses_degree", "2", "--degrees", "ring=2"],
            "--ulysses_degree fixes what --degrees searches; leave one of them out",
        ),
        (["--target_ci", "0.1"], "--target_ci does not apply to mlenergy tune: tune decides"),
        (["--overwrite_results"], "use another --folder to measure anew"),
        (["--ulysses_degree", "3"], "no degrees with the given --ulysses_degree make 2 processes"),
        (["--degrees", "ring=4"], "nothing can be measured: it takes 4 processes, and there are 2"),
        (["--attention_backend", "sage"], "nothing can be measured: "),
    ],
)
def test_says_what_is_wrong(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        space_of(words, H200)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_options_are_parted() -> None:
    asked = read_command(["--json", "--batch-sizes", "1", "2", "--device", "cpu", *FLUX, "--rounds", "2"])
    assert asked.words == ("--device", "cpu", *FLUX)
    assert (asked.json, asked.batch_sizes, asked.rounds, asked.degrees) == (True, (1, 2), 2, None)
    assert asked.given == {"device", "workload.model_id"}


def test_exact_options_are_turned_on_where_the_run_takes_them() -> None:
    """xfuser's own attention, under Ulysses, takes no fused projections; the VAE's options stay."""
    found = space_of([*NARROW, "--degrees", "auto", "--exact_options", "off", "on"])
    by_degrees: dict[tuple[int, ...], list[set[str]]] = {}
    for one in found.candidates:
        by_degrees.setdefault(degrees(one.plan), []).append(
            set(one.plan.optimizations.in_use) - {"attention"}
        )
    of_vae = {"vae_channels_last", "cudnn_benchmark"}
    assert by_degrees[1, 1, 1, 1, 1, 1] == [set(), {"fuse_qkv", *of_vae}]
    assert by_degrees[1, 1, 1, 1, 2, 1] == [set(), of_vae]
    turned = next(one for one in found.candidates if one.plan.optimizations.fuse_qkv)
    assert turned.label.endswith("not compiled, fuse_qkv, vae_channels_last, cudnn_benchmark")
    assert turned.plan.optimizations.lossy == [] and not isinstance(turned.expected, str)
    assert set(turned.expected.differs) == {"fuse_qkv", *of_vae}
    again = parse_args(to_argv(options_of(turned.args, turned.plan)))
    assert again.fuse_qkv and again.vae_channels_last
