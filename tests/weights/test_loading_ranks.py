"""Two ranks of a node load one model: one download, one copy in memory, one failure for all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlenergy.diffusion.weights.tiny import tiny_folder

pytestmark = pytest.mark.full  # a real start of two processes, whose memory is watched

HUB_ID = "owner/name"
LARGE_BYTES = 160e6  # well above what the libraries allocate on the way
NOT_NEEDED = ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "big.ckpt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, model_hub):
    """What both ranks found, and the hub they asked."""
    folder = tmp_path_factory.mktemp("ranks")
    source = tiny_folder("tiny/sd1.5", folder / "source")
    files = {str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    with model_hub(HUB_ID, files | dict.fromkeys(NOT_NEEDED, b"never asked for")) as hub:
        start(folder, hub.url, large_flux(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], hub, files


def start(folder, hub_url, large):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = [
        str(Path(__file__).parents[1] / "support" / "loading_worker.py"),
        str(folder),
        HUB_ID,
        str(large),
    ]
    env = os.environ | {
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([*torchrun, *script], env=env, check=True, timeout=240)


def large_flux(folder):
    """tiny/flux with a text encoder that shows in the memory of a process."""
    import torch
    from transformers import T5Config, T5EncoderModel

    from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

    pipeline = build_random_pipeline("tiny/flux", "cpu", torch.float32)
    sizes = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 4}
    config = T5Config(vocab_size=len(pipeline.tokenizer_2), feed_forward_proj="gated-gelu", **sizes)
    pipeline.register_modules(text_encoder_2=T5EncoderModel(config))
    pipeline.save_pretrained(folder / "large")
    path = folder / "large" / "text_encoder_2" / "model.safetensors"
    assert path.stat().st_size == pytest.approx(LARGE_BYTES, rel=0.1)
    return folder / "large"


def test_both_ranks_get_the_folder_that_one_made(ranks):
    found, _, _ = ranks
    assert found[0]["tiny"] == found[1]["tiny"] and Path(found[0]["tiny"], "model_index.json").is_file()
    assert found[0]["hub"] == found[1]["hub"]
    assert [rank["class"] for rank in found] == ["StableDiffusionPipeline"] * 2


def test_each_needed_file_travels_once_and_no_other_does(ranks):
    _, hub, files = ranks
    weights = [name for name in files if name.endswith(".safetensors")]
    assert weights
    assert {name: hub.bytes_sent[name] for name in weights} == {name: len(files[name]) for name in weights}
    assert [name for name in NOT_NEEDED if hub.bytes_sent[name]] == []


def test_a_model_that_is_not_there_fails_on_both_ranks(ranks):
    lines = [rank["missing"] for rank in ranks[0]]
    assert lines[0] == lines[1] and lines[0].startswith("refused: owner/none is not on the hub")


def test_ranks_of_a_node_share_one_copy_of_the_weights(ranks):
    """Pages that ranks share count by half on each, so the sum is what the node holds."""
    growth = sum(rank["host_pss_growth_bytes"] for rank in ranks[0])
    assert 0.8 * LARGE_BYTES < growth < 1.5 * LARGE_BYTES
