"""FLOPs planned for a folder whose configuration differs from its family's, against those of a real call."""

from __future__ import annotations

import pytest
import torch
from own_models import TWO_BLOCKS, save_pipeline
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.cost.fit import count_costs
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.cost.memory import estimate_memory
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine
from mlenergy.diffusion.models.resolve import resolve_model

CHANGES = {
    "tiny/sd3": {"vae": TWO_BLOCKS, "transformer": {"patch_size": 4}},
    "tiny/flux": {"vae": TWO_BLOCKS},
    "tiny/sdxl": {"vae": TWO_BLOCKS},
    "tiny/pixart-sigma": {"vae": TWO_BLOCKS},
}


@pytest.mark.parametrize(
    "model_id", ["tiny/sd3", *(pytest.param(m, marks=pytest.mark.full) for m in CHANGES if m != "tiny/sd3")]
)
def test_what_is_planned_for_a_vae_of_two_blocks_is_what_runs(tmp_path, monkeypatch, model_id):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # In this process, which has torch: the child that counts is tested beside this.
    monkeypatch.setattr(
        costs, "_ask_child", lambda asked: count_costs(costs.architecture_from_request(asked))
    )
    folder = str(save_pipeline(tmp_path / "own", model_id, CHANGES[model_id]))
    work = TextToImage(folder, dataset="bundled", height=64, width=96, inference_steps=2, dtype="float32")
    args = BenchmarkArgs(work, engine="diffusers", device="cpu")
    plan = make_plan(args, resolve_model(folder), 1, "cpu", "some CPU")
    engine = DiffusersEngine.load(plan, Cluster(Rank(), torch.device("cpu"), None))
    # Other kernels of attention count themselves differently, or not at all.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        images = engine.generate(Batch(("a cat",), (7,))).images
    assert images.shape == (1, 3, 64, 96)
    assert flops_of(plan).total == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert estimate_memory(plan).activation_bytes["vae_decode"] > 64 * 96 * 3 * 4
