"""--save_latents: the latents that the decoder took, and the same operators as without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.outputs import collect_latents

SMALL = ("--workload.inference_steps=1", "--workload.height=32", "--workload.width=32")


class Operators(TorchDispatchMode):
    """Names of the operators that run, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def engine_of(cluster: Cluster, *options: str) -> Any:
    argv = ("--device", "cpu", "--engine", "diffusers", *options, *SMALL)
    return load_engine(plan_from(argv, 1, "run")[1], cluster)


@pytest.fixture
def alone() -> Cluster:
    return Cluster(Rank(hostname="here"), torch.device("cpu"), None)


@pytest.mark.parametrize(
    "model", ["workload:t2v --workload.model_id tiny/wan --workload.num_frames 5", "tiny/flux"]
)
def test_the_decoder_makes_the_output_of_them_and_no_operator_is_added(alone: Cluster, model: str) -> None:
    words = model.split() if " " in model else ["workload:t2i", "--workload.model_id", model]
    batch = Batch(("a fox", "a house"), (1, 2))
    found, names = {}, {}
    for option in ("--save_latents", "--no_save_latents"):
        engine = engine_of(alone, option, *words, "--workload.batch_size=2")
        engine.generate(batch)
        with Operators() as seen:
            found[option] = engine.generate(batch)
        names[option] = seen.names
    kept, without = found["--save_latents"], found["--no_save_latents"]
    assert without.latents == () and torch.equal(kept.images, without.images)
    assert names["--save_latents"] == names["--no_save_latents"]
    rows = collect_latents(kept, alone)
    assert rows is not None and len(rows) == 2
    vae = engine.pipeline.vae  # of the run without: its decode is the library's own
    with torch.no_grad():
        decoded = vae.decode(torch.stack(rows), return_dict=False)[0]
    if decoded.ndim == 5:
        decoded = decoded.movedim(1, 2)
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), kept.images, atol=1e-6, rtol=0)


def test_as_many_latents_as_outputs(alone: Cluster) -> None:
    made = Generated(torch.zeros(2, 3, 8, 8), 0, (torch.zeros(1, 4, 2, 2),))
    with pytest.raises(RuntimeError, match="took 1 latents for 2 outputs"):
        collect_latents(made, alone)


def test_there_are_none_where_tokens_are_predicted() -> None:
    with pytest.raises(UserError, match="--save_latents: tiny/infinity predicts tokens"):
        plan_from(("--device=cpu", "--save_latents", "--workload.model_id=tiny/infinity"), 1, "run")
