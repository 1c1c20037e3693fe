"""A process of its own in which cases run on fake GPUs; prints a line of JSON for each.

    python fake_cuda_worker.py CASES.json

CASES: name -> {"words": of the command line, "rank", "world", "yes": what a truth on the device is read as,
"without": patches that are left out}.
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import fake_cuda
import torch
from fake_cuda_watch import LOG, Watch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import device_mesh

fake_cuda.install()  # libraries ask for CUDA when they are imported

from mlenergy.diffusion.config.args import parse_args  # noqa: E402
from mlenergy.diffusion.config.resolve import make_plan  # noqa: E402
from mlenergy.diffusion.distributed.cluster import Cluster, Rank  # noqa: E402
from mlenergy.diffusion.engine import Batch  # noqa: E402
from mlenergy.diffusion.engines import load_engine, loading  # noqa: E402
from mlenergy.diffusion.engines.autoregressive import var_model  # noqa: E402
from mlenergy.diffusion.engines.diffusers import mesh  # noqa: E402
from mlenergy.diffusion.engines.xdit import groups, setup  # noqa: E402
from mlenergy.diffusion.engines.xdit.patches import registry  # noqa: E402
from mlenergy.diffusion.models.resolve import resolve_model  # noqa: E402
from mlenergy.diffusion.weights import pipeline  # noqa: E402
from mlenergy.diffusion.weights.random import pipeline as random_pipeline  # noqa: E402


def main(file: str) -> None:
    """Run all cases."""
    torch.set_num_threads(1)
    build_without_values()
    cases = json.loads(Path(file).read_text())
    for name, case in cases.items():
        print(json.dumps({"name": name, **served(**case)}), flush=True)


def served(words: list[str], rank: int, world: int, yes: bool, without: list[str]) -> dict[str, Any]:
    """One case's record, or {"error", "trace"}."""
    started = time.perf_counter()
    LOG.yes = yes
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = False  # of the case before
    setup.apply_patches = functools.partial(registry.apply_patches, without)
    try:
        record = run(words, rank, world)
    except Exception as error:
        record = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return record | {"seconds": round(time.perf_counter() - started, 2)}


def run(words: list[str], rank: int, world: int) -> dict[str, Any]:
    """Load an engine on this rank's fake GPU, generate one batch, and say what was seen."""
    device = fake_cuda.pretend(rank, world)
    groups.dissolve_groups()
    mesh._meshes.clear()
    fake_cuda.join_group(rank, world)
    args = parse_args(["--device", "cpu", *words])
    plan = make_plan(args, resolve_model(args.workload.model_id), world, "cuda", fake_cuda.NAME)
    cluster = Cluster(Rank(rank, rank, world, world, "h", True), device, None)
    LOG.clear()
    with FakeTensorMode(), Watch():
        engine: Any = load_engine(plan, cluster)
        at_load = sorted(LOG.devices)
        held = {
            str(tensor.device)
            for part in engine.components().values()
            for tensor in (*part.parameters(), *part.buffers())
        }
        denoiser = engine.components()[plan.spec.family.denoiser]
        denoiser.register_forward_pre_hook(lambda *_: LOG.mark("enter"))
        denoiser.register_forward_hook(lambda *_: LOG.mark("leave"))
        LOG.clear()
        rows = plan.batch_size
        classes = tuple(range(rows)) if plan.is_class_conditional else ()
        batch = Batch(("a red fox in the snow",) * rows, tuple(range(rows)), classes)
        images = engine.generate(batch).images
        record = {
            "device": str(device),
            "held_on": sorted(held),
            "loaded_on": at_load,
            "computed_on": sorted(LOG.devices),
            "waits": dict(LOG.while_denoising()),
            "calls": LOG.waits.count("enter"),
            "kernels": dict(LOG.kernels),
            "views": dict(LOG.views),
            "images": None if images is None else [list(images.shape), str(images.device)],
            "facts": {"attention_backend": engine.report.facts.get("attention_backend")},
        }
        record["effects"] = engine.effects(0)
        engine.close()
    gc.collect()
    return record


def build_without_values() -> None:
    """Pipelines are built in shape, also those that would be read from a folder; no value is drawn."""
    mesh.init_device_mesh = device_mesh.init_device_mesh  # a forked process has imported it before
    loading.locate = lambda *_: None  # type: ignore[assignment]
    pipeline._saved = lambda _, plan, place: pipeline._random(None, plan, place)
    for name in ("draw_by_name", "draw_in_order"):
        for module in (random_pipeline, var_model):
            setattr(module, name, lambda *_: lambda *_: None)
    random_pipeline._fingerprint = lambda _: "no values"
    random_pipeline.follow_input = lambda _: True


if __name__ == "__main__":
    main(*sys.argv[1:])
