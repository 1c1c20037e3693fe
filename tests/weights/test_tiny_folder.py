"""Tiny pipelines: whole folders, the same bytes each time, sane images that follow the prompt."""

import filecmp
import inspect
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights.tiny import _fingerprint, tiny_folder, tiny_ids


def test_names_need_no_torch():
    code = "import sys, mlenergy.diffusion.weights.tiny; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match="tiny/flux"):
        tiny_folder("tiny/nothing")


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        tiny_folder("tiny/flux", tmp_path / "file" / "cache")


def test_default_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    there = tmp_path / "mlenergy" / "tiny" / f"flux-{_fingerprint()}"
    there.mkdir(parents=True)  # a complete folder is taken as it is
    assert tiny_folder("tiny/flux") == there


def test_same_bytes_each_time_and_nothing_left_aside(tmp_path):
    first, second = (tiny_folder("tiny/flux", tmp_path / side) for side in "ab")
    files = sorted(str(p.relative_to(first)) for p in first.rglob("*") if p.is_file())
    assert any(name.endswith(".safetensors") for name in files)
    same, different, errors = filecmp.cmpfiles(first, second, files, shallow=False)
    assert (sorted(same), different, errors) == (files, [], [])
    assert [p.name for p in (tmp_path / "a").iterdir()] == [first.name]


def test_two_processes_at_once_give_one_whole_folder(tmp_path):
    call = f"tiny_folder('tiny/flux', {str(tmp_path)!r})"
    code = f"from mlenergy.diffusion.weights.tiny import tiny_folder; print({call})"
    runs = [forked.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [run.communicate(timeout=120)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outs[0] == outs[1] and [str(p) for p in tmp_path.iterdir()] == outs[:1]


def test_any_rank_of_a_process_group_writes_all_files(tmp_path):
    """Transformers' own saving writes on rank 0 only: the folder of rank 1 lacked its text encoders."""
    code = (
        "import os, sys, torch.distributed as dist; "
        "from mlenergy.diffusion.weights.tiny import tiny_folder; "
        "rank, store, cache = int(sys.argv[1]), sys.argv[2], sys.argv[3]; "
        "dist.init_process_group('gloo', rank=rank, world_size=2, store=dist.FileStore(store, 2)); "
        "rank == 1 and print(tiny_folder('tiny/flux', cache)); dist.barrier()"
    )
    command = [sys.executable, "-c", code]
    paths = [str(tmp_path / "store"), str(tmp_path / "cache")]
    ranks = [forked.Popen([*command, rank, *paths], stdout=subprocess.PIPE, text=True) for rank in "01"]
    outs = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    alone = tiny_folder("tiny/flux", tmp_path / "alone")
    files = {str(p.relative_to(alone)) for p in alone.rglob("*")}
    assert {str(p.relative_to(outs[1])) for p in Path(outs[1]).rglob("*")} == files


# Their language models read a template around the prompt: most of the text, and the same for all prompts.
TEMPLATED = ("tiny/flux2", "tiny/flux2-klein", "tiny/qwen-image", "tiny/lumina2", "tiny/hunyuanvideo1.5")
# Zeros up to 256 tokens, or learned states up to 1024, which their denoisers attend to as well.
PADDED = ("tiny/auraflow", "tiny/ltx2")

# Height, width and steps, of a pipeline that scales other sizes to this one.
SIZES = {"tiny/hidream": (256, 256, 1)}
# Its projection of ByT5's states is 2048 wide, whatever the configuration says.
LARGER = {"tiny/hunyuanimage": 24e6, "tiny/hunyuanvideo1.5": 24e6}


# Models with a rule of their own above, and every third of the others; the rest carry the mark full.
QUICK = {*SIZES, *LARGER, *PADDED, *TEMPLATED, *list(tiny_ids())[::3]}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in tiny_ids()]
)
def test_pipeline_is_small_quick_and_follows_the_prompt(name, tmp_path):
    import torch
    from diffusers import DiffusionPipeline

    began = time.monotonic()
    folder = tiny_folder(name, tmp_path)
    assert time.monotonic() - began < 20  # under 5 s alone; other tests share these cores
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < LARGER.get(name, 10e6)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    _assert_no_zero(pipeline, torch)
    size = SIZES.get(name, (64, 96, 2))
    _assert_follows_the_prompt(name, pipeline, 0.002 if name in TEMPLATED + PADDED else 0.02, size)


def _assert_no_zero(pipeline, torch):
    modules = {n: m for n, m in pipeline.components.items() if isinstance(m, torch.nn.Module)}
    zero = [f"{n}.{k}" for n, m in modules.items() for k, v in m.named_parameters() if (v == 0).any()]
    assert modules and zero == []


def _assert_follows_the_prompt(name, pipeline, least, size):
    import torch

    pipeline.set_progress_bar_config(disable=True)
    height, width, steps = size
    options = {"height": height, "width": width, "num_inference_steps": steps, "output_type": "pt"}
    if "use_resolution_binning" in inspect.signature(pipeline.__call__).parameters:
        options["use_resolution_binning"] = False  # the bins begin at 512 pixels
    frames, family = BY_ID[name].default_num_frames, BY_ID[name].family
    options |= {} if frames is None else {family.frames_argument: frames, **family.arguments}
    cat, again, dog = (
        pipeline(prompt=prompt, generator=torch.Generator().manual_seed(1), **options)[0]
        for prompt in ("a cat on a mat", "a cat on a mat", "a dog in the fog")
    )
    assert cat.shape == (1, *([] if frames is None else [frames]), 3, height, width) and cat.isfinite().all()
    assert torch.equal(cat, again)
    assert (cat - dog).abs().mean() > least
    assert cat.std() > 0.05 and ((cat == 0) | (cat == 1)).float().mean() < 0.3
