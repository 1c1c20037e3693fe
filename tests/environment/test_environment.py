"""The environment record: complete, without torch, and without a secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlenergy.diffusion.environment.cache import cache_folder
from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.environment.gpus import Gpu, visible_gpus
from mlenergy.diffusion.environment.record import environment_record, node_record
from mlenergy.diffusion.environment.redact import REDACTED, redact, redact_arguments
from mlenergy.diffusion.errors import UserError

SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz",
    "HUGGING_FACE_HUB_TOKEN": "plainlookingvalue1",
    "HF_ENDPOINT": "https://user:hunter22@mirror.example/hf",
    "NCCL_AUTH": "swordfish99",
    "WANDB_API_KEY": "0123456789abcdef0123",
    "MY_PASSWORD": "correct horse battery",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NCCL_DEBUG": "INFO",
    "CUDA_SOMETHING": "Bearer abc.def",
}
ARGV = [
    "benchmark",
    "--hub_token",
    "spacesepval",
    "--api-key=equalsval",
    "--workload.model_id",
    "tiny/flux",
    "--note",
    "with plainlookingvalue1 inside",
    "--url",
    "https://me:pw123456@host/x",
    "--bare",
    "ghp_abcdefghij0123456789",
]
HIDDEN = (
    "hf_abcdefgh", "plainlookingvalue1", "hunter22", "swordfish99", "0123456789abcdef0123", "correct horse",
    "spacesepval", "equalsval", "pw123456", "ghp_abc", "abc.def",
)  # fmt: skip


def test_no_secret_of_environment_or_command_line_is_in_the_record():
    text = json.dumps(environment_record(ARGV, environ=SECRETS))
    for secret in HIDDEN:
        assert secret not in text, secret
    for harmless in ("tiny/flux", "INFO", "--hub_token", "https://", "mirror.example"):
        assert harmless in text, harmless


def test_arguments_keep_their_places():
    kept = redact_arguments(ARGV, SECRETS)
    assert len(kept) == len(ARGV)
    assert kept[2] == REDACTED and kept[3] == f"--api-key={REDACTED}"
    assert kept[5] == "tiny/flux" and kept[7] == f"with {REDACTED} inside"


def test_a_value_that_starts_with_two_dashes_is_the_next_option():
    assert redact_arguments(["--use_token", "--tokenizer", "x"], {}) == ["--use_token", "--tokenizer", "x"]


def test_redact_leaves_ordinary_text_alone():
    text = "steps=28 author=me https://host:8080/path skill-set-of-twenty tokenizer_2"
    assert redact(text, {"AUTHOR": "me", "X_TOKEN": "1"}) == text


def test_the_record_has_what_a_reader_asks_for():
    record = environment_record(["x"], {"attention_backend": "sdpa"})
    assert record["engine"] == {"attention_backend": "sdpa"}
    for package in ("torch", "xfuser", "diffusers", "transformers", "zeus", "nvidia-ml-py"):
        assert record["versions"][package], package
    (node,) = record["nodes"]
    assert node["hostname"] and node["cpu"] and node["memory_bytes"] > 0
    assert node["gpus"] or node["gpu_reason"]
    assert set(record["source"]) == {"version", "commit", "dirty", "reason"}
    assert record["source"]["commit"] or record["source"]["reason"]


def test_ranks_of_one_node_count_once():
    one, two = node_record(), {**node_record(), "hostname": "other"}
    record = environment_record(["x"], nodes=[one, one, two, two])
    assert [node["hostname"] for node in record["nodes"]] == [one["hostname"], "other"]


GPUS = [Gpu(0, "GPU-aaaa-1", "A"), Gpu(1, "GPU-aaab-2", "B"), Gpu(2, "GPU-b-3", "C")]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),  # CUDA, too, stops at the first that is not there
        ("GPU-b", [2]),
        ("GPU-aaab-2,0", [1, 0]),
        ("GPU-aaa", []),  # fits two
        ("MIG-1234", []),
        ("1, 2", [1, 2]),
    ],
)
def test_visible_devices_are_those_that_cuda_takes(value, indices):
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert [gpu.index for gpu in visible_gpus(GPUS, environ)] == indices


def test_the_device_is_told_without_torch():
    code = (
        "import sys; from mlenergy.diffusion.environment.device import detect_device; "
        "from mlenergy.diffusion.environment.record import environment_record; "
        "print(*detect_device('auto')); environment_record([]); "
        "assert 'torch' not in sys.modules and 'zeus' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[0] in ("cpu", "cuda", "mps")


def test_a_cpu_may_be_asked_for_anywhere():
    device, name = detect_device("cpu")
    assert device == "cpu" and name


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"no CUDA device can be used: .*; use --device cpu"):
        detect_device("cuda")


def test_the_cache_is_where_the_desktop_keeps_its_caches_or_below_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("flops") == tmp_path / "mlenergy" / "flops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("flops") == Path.home() / ".cache" / "mlenergy" / "flops"
