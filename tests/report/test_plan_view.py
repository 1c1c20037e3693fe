"""A dry run shows what would run: ranks and roles, shapes, folder, a command that makes the same plan."""

import importlib.util
import io
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from result_samples import cpu_plan, make_plan

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.argv import torchrun_line
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.resolve import make_plan as resolve
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.report.plan_view import plan_as_dict, print_plan
from mlenergy.diffusion.report.ranks import rank_roles
from mlenergy.diffusion.results.paths import RunPaths


def text_of(plan, **options):
    out = io.StringIO()
    print_plan(plan, stream=out, **options)
    return out.getvalue()


def test_flux_on_four_gpus(golden):
    plan = make_plan("run/x", parallel=Parallelism(ulysses=2, ring=2), dataset="open-image-preferences")
    golden("plan_flux_4.txt", text_of(plan))


def test_every_mode_at_once(golden):
    parallel = Parallelism(data=2, cfg=2, pipefusion=2, ring=1, ulysses=2, parallel_vae=True)
    plan = make_plan("run/x", parallel=parallel, prompt_prefix="oil,\n", save_images=False, revision="v1")
    golden("plan_all_modes.txt", text_of(plan))


def test_one_process_on_a_cpu(golden):
    golden(
        "plan_one_process.txt", text_of(cpu_plan(parallel=Parallelism(), engine="diffusers", batch_size=1))
    )


def test_many_ranks_are_not_all_printed_but_all_listed():
    plan = make_plan(parallel=Parallelism(data=64), batch_size=64)
    assert "and 32 ranks more" in text_of(plan)
    assert len(json.loads(text_of(plan, as_json=True))["ranks"]) == 64


def test_the_plan_as_data():
    plan = make_plan("run/x", parallel=Parallelism(ulysses=2, ring=2))
    data = json.loads(text_of(plan, as_json=True))
    assert data == json.loads(json.dumps(plan_as_dict(plan)))
    assert data["world_size"] == len(data["ranks"]) == 4
    assert data["shapes"] == {"images": [4, 3, 1024, 1024], "latent": [128, 128], "tokens": [64, 64]}
    assert data["sequence"]["image_tokens"] == 4096
    assert data["sequence"]["image_tokens_per_rank"] == 1024
    assert data["sequence"]["tokens_per_rank"] == (4096 + 512) // 4
    assert data["result_folder"] == str(RunPaths.of(plan).folder)
    assert data["configuration"]["dtype"] == "bfloat16"


def xfuser_groups(parallel):
    """The rank groups that xfuser would form, by its own generator, which its package needs no GPU for."""
    package = Path(importlib.util.find_spec("xfuser").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("xfuser_rank_utils", package / "core/distributed/utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generator = module.RankGenerator(
        parallel.tensor,
        parallel.sequence,
        parallel.pipefusion,
        parallel.cfg,
        parallel.data,
        1,
        "tp-sp-pp-cfg-dp",
    )
    return {axis: generator.get_ranks(axis) for axis in ("tp", "sp", "pp", "cfg", "dp")}


@pytest.mark.parametrize(
    "parallel",
    [
        Parallelism(data=2, cfg=2, pipefusion=2, ring=2, ulysses=3, tensor=2),
        Parallelism(cfg=2, ring=2, ulysses=2),
        Parallelism(pipefusion=4, data=2),
    ],
)
def test_the_roles_are_those_of_xfusers_own_groups(parallel):
    roles = rank_roles(make_plan(parallel=parallel, batch_size=4))
    axes = {
        "tp": lambda r: r.tensor,
        "sp": lambda r: r.ring * parallel.ulysses + r.ulysses,
        "pp": lambda r: r.pipefusion,
        "cfg": lambda r: r.cfg,
        "dp": lambda r: r.data,
    }
    for axis, groups in xfuser_groups(parallel).items():
        for group in groups:
            assert [axes[axis](roles[rank]) for rank in group] == list(range(len(group)))
            others = [
                tuple(place(roles[rank]) for name, place in axes.items() if name != axis) for rank in group
            ]
            assert len(set(others)) == 1, "only one coordinate changes inside a group"


def test_each_group_has_its_images_and_one_rank_that_returns_them():
    parallel = Parallelism(data=2, ulysses=2)
    for engine, speakers in (("xdit", [1, 3]), ("diffusers", [0, 2])):
        roles = rank_roles(make_plan(parallel=parallel, batch_size=6, engine=engine))
        assert [(r.first_image, r.last_image) for r in roles] == [(0, 3), (0, 3), (3, 6), (3, 6)]
        assert [r.rank for r in roles if r.returns_images] == speakers
    assert roles[3].role == "images 3-5, sequence part 2 of 2"


FULL = {
    "dtype": "float16",
    "steps": 7,
    "guidance_scale": 0.1 + 0.2,
    "height_px": 512,
    "width_px": 768,
    "max_sequence_length": 256,
    "seed": 7,
    "dataset": "it's/a set.txt",
    "prompt_column": "-caption",
    "prompt_prefix": "--oil, \n",
    "warmup_iters": 0,
    "benchmark_iters": 9,
    "save_images": False,
    "energy_gpus": ("0", "GPU-5a"),
    "power_limit_w": 450.0,
    "target_ci": 0.02,
    "revision": "v1",
    "variant": "fp16",
    "trust_remote_code": True,
    "parallel": Parallelism(ulysses=2, ring=2),
}


# Each alone; ring has no float32 kernel on a GPU, and that is tiny/flux's default.
ALONE = [
    {name: value} if name != "parallel" else {name: value, "dtype": "float16"} for name, value in FULL.items()
]


@pytest.mark.parametrize("changes", [{}, FULL, *ALONE])
@pytest.mark.parametrize(
    "model_id", ["black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell", "tiny/flux"]
)
def test_the_command_makes_the_same_plan_again(model_id, changes):
    spec = BY_ID[model_id]
    if spec.guidance == "none":
        changes = {name: value for name, value in changes.items() if name != "guidance_scale"}
    plan = replace(make_plan("run/my results", spec=spec), **changes)
    launcher, processes, *words = shlex.split(torchrun_line(plan))
    assert (launcher, processes) == ("torchrun", f"--nproc_per_node={plan.parallel.world_size}")
    assert words[:2] == ["-m", "mlenergy.diffusion.benchmark"]
    args = parse_args(words[2:])
    assert resolve(args, spec, plan.parallel.world_size, plan.device, plan.device_name) == plan


def test_a_pipe_gets_no_escapes():
    plan = make_plan(prompt_prefix="\x1b[31mred", dataset="a\nb.txt")
    assert "\x1b" not in text_of(plan)
    assert "\na" not in text_of(plan).replace("\n  ", "")


def test_reports_do_not_import_torch_or_other_heavy_things():
    code = "import sys\nimport mlenergy.diffusion.report.plan_view, mlenergy.diffusion.report.run_view\n"
    code += "assert not {'torch', 'numpy', 'datasets', 'PIL', 'pyarrow', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plan_of_videos_says_frames_and_never_images():
    spec = BY_ID["tiny/wan"]
    plan = cpu_plan(spec=spec, num_frames=9, fps=8, save_latents=True)
    text = text_of(plan)
    assert "96x64 px, 9 frames at 8 fps, " in text.replace("1024x1024", "96x64")
    assert "saved as MP4 files, and the final latents" in text
    assert "2 videos, 4 in all measured" in text
    assert "image" not in text.replace("text-to-image", "")
    alone = text_of(replace(plan, parallel=Parallelism(data=2)))
    assert "video 0, " in alone and "image" not in alone.replace("text-to-image", "")
    shown = json.loads(text_of(plan, as_json=True))
    assert shown["videos"] == 4 and "images" not in shown
