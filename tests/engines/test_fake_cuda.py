"""The branches that run on GPUs, on fake ones: places of tensors, waits of the host, attention kernels.

`make test` runs a few cases, and all others carry `full`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from fake_cuda_cases import CASES, QUICK, SHOWN, Case

WORKER = Path(__file__).parents[1] / "support" / "fake_cuda_worker.py"
# Files, or lines, that make the host wait while denoising, by case; no other may. Diffusers' own: DDPM
# (HunyuanDiT) and PNDM (SD 1.5) look their tables up by a timestep on the device, DDPM draws a noise in every
# step, and HunyuanDiT makes a tensor of the timestep. A step cache decides on the host.
DDPM = {"scheduling_ddpm.py", "torch_utils.py", "pipeline_hunyuandit.py"}
WAITS = {
    # CogVideoX's DDIM looks its tables up by a timestep on the device. At another size than its own, xfuser
    # makes the 2b's positions anew and copies them to the device in every step.
    "cogvideox": {"scheduling_ddim_cogvideox.py"},
    "cogvideox-2b": {"pos_embedding = pos_embedding.to(embeds.device"},
    # UniPC copies noise levels to the device in every step, and Wan's pipeline asks which denoiser is to run.
    "wan": {"scheduling_unipc_multistep.py", "pipeline_wan.py"},
    "hunyuandit": DDPM,
    "sd1.5": {"scheduling_pndm.py"},
    "cache": {"xfuser/model_executor/cache/utils.py"},
    "z-image": {"self.freqs_cis = [freqs_cis.to(device)"},  # once, in the first call of the process
    "lumina2": {"l_effective_cap_len"},  # in every call it asks how long each text is
}
# Word of --attention_backend -> word of the operator.
KERNELS = {"math": "softmax", "flash": "flash", "efficient": "efficient", "cudnn": "cudnn"}


def run(cases: dict[str, Case], folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> what the worker saw."""
    asked = folder / "cases.json"
    asked.write_text(json.dumps({name: case.asked() for name, case in cases.items()}))
    done = forked.run([sys.executable, str(WORKER), str(asked)], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    records = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"'))
    return {record.pop("name"): record for record in records}


_OTHERS = sorted({case.model for name, case in CASES.items() if name not in QUICK})


@pytest.fixture(
    scope="module", params=["quick", *(pytest.param(model, marks=pytest.mark.full) for model in _OTHERS)]
)
def records(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    others = [name for name, case in CASES.items() if case.model == request.param and name not in QUICK]
    names = QUICK if request.param == "quick" else others
    found = run({name: CASES[name] for name in names}, tmp_path_factory.mktemp("fake"))
    errors = {name: record["trace"] for name, record in found.items() if "error" in record}
    assert not errors, "\n".join(f"{name}: {trace}" for name, trace in errors.items())
    return found


def test_everything_is_on_the_rank_s_own_device(records: dict[str, dict[str, Any]]) -> None:
    for name, record in records.items():
        own = record["device"]
        assert own == f"cuda:{CASES[name].world - 1}"
        for kind in ("held_on", "loaded_on", "computed_on"):
            assert record[kind] == [own], f"{name}: {kind}"
        assert record["images"] is None or record["images"][1] == own, name


def test_the_host_waits_for_nothing_while_denoising(records: dict[str, dict[str, Any]]) -> None:
    for name, record in records.items():
        assert record["calls"] >= 3, name
        known = set().union(*(files for word, files in WAITS.items() if word in name))
        found = {wait for wait in record["waits"] if not any(file in wait for file in known)}
        assert not found, f"{name}: {found}"
        assert bool(record["waits"]) == bool(known), f"{name} waits no longer: drop it from WAITS"


def test_the_recorded_attention_is_the_one_that_ran(records: dict[str, dict[str, Any]]) -> None:
    for name, record in records.items():
        ran, recorded = record["kernels"], record["effects"]["attention"]["kernels"]
        assert ran and set(recorded) == set(ran), name
        # Infinity reads the text once more, in its first scale.
        once = 1 if name.startswith("infinity") else 0
        assert sum(ran.values()) - once == record["calls"] * (sum(recorded.values()) - once), name
        _, _, asked = CASES[name].words.partition("--attention_backend ")
        if asked:
            assert any(KERNELS[asked] in kernel for kernel in ran), f"{name}: {ran}"


def test_layouts_and_settings_are_those_that_were_asked_for(records: dict[str, dict[str, Any]]) -> None:
    for name, record in records.items():
        words, effects = CASES[name].words.split(), record["effects"]
        asked = {
            "cudnn_benchmark": "--cudnn_benchmark" in words,
            "tf32_products": "--tf32" in words,
            "tf32_convolutions": True,  # as torch has it
        }
        assert effects["backends"] == asked, name
        assert ("fused_qkv" in effects) is ("--fuse_qkv" in words), name
        for part in ("vae", "unet"):
            seen = effects.get("channels_last", {}).get(part)
            assert (seen is not None) is (f"--{part}_channels_last" in words), name
            # What a convolution gives is cuDNN's to say, which a CPU build has not.
            runs = part == "unet" or record["images"] is not None  # one rank of a group decodes
            assert seen is None or (seen["convolutions"] > 20) is runs, name
        if "fused_qkv" in effects:
            assert effects["fused_qkv"]["linear_layers"] < effects["fused_qkv"]["linear_layers_before"]


def test_cudnn_is_called_on_contiguous_tensors_only(records: dict[str, dict[str, Any]]) -> None:
    for name, record in records.items():
        assert not [kernel for kernel in record["views"] if "cudnn" in kernel], name


@pytest.fixture(scope="module")
def unpatched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return run(SHOWN, tmp_path_factory.mktemp("fake"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        ("flow-euler-waits", lambda record: sum("s_tmin" in wait for wait in record["waits"]) == 1),
        ("cudnn-views", lambda record: any("cudnn" in kernel for kernel in record["views"])),
        ("efficient-ring-padding", lambda record: "broadcast" in record["error"]),
        ("hunyuandit-rotary-copies", lambda record: any("embeddings.py" in wait for wait in record["waits"])),
        ("caches-on-first-gpu", lambda record: "cuda:0" in record["loaded_on"]),
    ],
)
def test_the_fault_is_still_there_without_its_patch(
    fault: str, shows: Any, unpatched: dict[str, dict[str, Any]]
) -> None:
    """Where this fails, xfuser has fixed the fault itself: drop the patch."""
    (record,) = (record for name, record in unpatched.items() if fault in name)
    assert shows(record), {key: value for key, value in record.items() if key != "effects"}
