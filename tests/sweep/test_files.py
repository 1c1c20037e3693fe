"""Mistakes in a sweep file: each is one line that names the place and what belongs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import Ledger
from mlenergy.diffusion.sweep.command import main
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import SweepSpec, read_sweep

COMMON = "model_id: tiny/flux, dataset: bundled, device: cpu"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("common:\n  model_id: a/b\n  seed: 1\n  seed: 2\n", "line 4: seed is given twice, first in line 3"),
        ("repeats: 1\ncommon: {model_id: a/b}\nrepeats: 2\n", "line 3: repeats is given twice"),
        ('{"common": {"model_id": "a/b",\n "model_id": "c/d"}}', "line 2: model_id is given twice"),
        ("list:\n- {model_id: a/b}\n- {seed: 1, seed: 1}\n", "line 3: seed is given twice"),
        ("common: {seed: 1, workload.seed: 2}\n", "common gives workload.seed twice"),
        ("grid: {seed: [1], 'height, seed': [[64, 2]]}\n", "grid gives workload.seed twice"),
        ("common: {seed: 042}\n", "line 1: YAML reads 042 to the base 8; write 42, or '042'"),
        ("common: {[1, 2]: 3}\n", "line 1: a key must be a text"),
        ("common: {batch_size: four}\n", "common: workload.batch_size takes a whole number, not 'four'"),
        ("common: {batch_size: 4.0}\n", "common: workload.batch_size takes a whole number, not '4.0'"),
        ("common: {batch_size: true}\n", "takes a whole number, not True (true or false)"),
        ("common: {batch_size: [1, 2]}\n", "takes a whole number, not [1, 2] (a list)"),
        ("common: {guidance_scale: .nan}\n", "workload.guidance_scale takes a finite number, not 'nan'"),
        ("common: {idle_s: -.inf}\n", "common: idle_s takes a finite number, not '-inf'"),
        ("list: [{idle_s: 1e400}]\n", "list: idle_s takes a finite number"),
        ("grid: {seed: [1, -1]}\n", "grid seed: workload.seed -1 is too small"),
        ("grid: {seed: [99999999999999999999]}\n", "too large"),
        ("common: {save_images: 'no'}\n", "save_images takes true or false, not 'no' (a text)"),
        ("common: {revision: 1234}\n", "takes a text, not 1234 (a whole number); put it in quotes"),
        ("common: {revision: 2024-01-01}\n", "takes a text, not 2024-01-01 (a date); put it in quotes"),
        ("common: {negative_prompt: no}\n", "takes a text, not False (true or false); put it in quotes"),
        ("common: {compile_mode: off}\n", "compile_mode takes a text, not False (true or false)"),
        ("common: {compile_mode: half}\n", "compile_mode takes one of whole, regional, not 'half'"),
        ("common: {model_id: {a: b}}\n", "takes a text, not {'a': 'b'} (a mapping)"),
        ('common: {lora: "a\\0b"}\n', "holds a NUL character"),
        ('common: {prompt_prefix: "\\ud800"}\n', "surrogate"),
        ("common: {lora: ''}\n", "workload.lora '' is empty"),
        ("common: {workload: t3i}\n", "takes one of text-to-image, t2i, text-to-video, t2v, not 't3i'"),
        ("common: {model_id: a/b}\nfolder: 5\n", "folder takes a path as a text, not 5"),
        ("common: {model_id: a/b}\nrepeats: two\n", "repeats 'two' must be a whole number"),
        ("common: {model_id: a/b}\nslurm: {gpus: 'no'}\n", "slurm: gpus takes true or false, not 'no'"),
        ("common: {model_id: a/b}\nslurm: {options: [a]}\n", "slurm: options maps sbatch's options"),
        ("common: {model_id: a/b}\nslurm: {setup: 5}\n", "slurm: setup takes lines of shell, not 5"),
        (
            "common: {model_id: a/b}\ngrid: {seed: {values: [1], when: processes > 1}}\n",
            "grid seed: when cannot ask for processes",
        ),
    ],
)
def test_a_mistake_is_one_line(sweep_file: Callable[[str], Path], text: str, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        read_sweep(sweep_file(text))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_values_keep_their_meaning(sweep_spec: Callable[[str], SweepSpec]) -> None:
    spec = sweep_spec("""
common: &all {model_id: tiny/flux, cache_threshold: 1e-1, guidance_scale: 4, energy_gpus: [0, 1], lora: null}
list:
  - {<<: *all, model_id: tiny/sd3}
slurm: {options: {time: 12:00:00, mem: 8}}
""")
    assert spec.common["cache_threshold"] == 0.1  # YAML takes it for a text
    assert spec.common["energy_gpus"] == ["0", "1"]
    assert spec.slurm.options == {"time": "12:00:00", "mem": 8}
    [run] = expand(spec)
    words = "--cache_threshold 0.1 --energy_gpus 0 1 workload:text-to-image --workload.model_id tiny/sd3"
    assert " ".join(run.argv).startswith(f"{words} --workload.guidance_scale 4 ")


@pytest.mark.parametrize("words", [[], ["--print"], ["--executor", "slurm"]])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("grid: {ulysses_degree: [3, 5]}", "none of 2 runs can work; the first one: --ulysses_degree 3 does"),
        ("list: [{batch_size: 60000, benchmark_iters: 100}]", "none of 1 runs can work"),
        ("filter: batch_size > 1", "the filters leave no run"),
        ("filter: processes > 1", "the filters leave no run"),
        ("filter: processes > 1\ngrid: {ulysses_degree: [1, 3]}", "none of 2 runs can work"),
    ],
)
def test_a_sweep_of_which_nothing_can_run_is_a_mistake(
    sweep_file: Callable[[str], Path], words: list[str], text: str, complaint: str
) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {{{COMMON}}}\n{text}\n")
    with pytest.raises(UserError) as error:
        main([str(file), *words])
    assert complaint in str(error.value)
    # Its reasons are kept all the same.
    assert words == ["--print"] or len(Ledger.load(Path("sweep/state.json")).entries) in (0, 1, 2)
