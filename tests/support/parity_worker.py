"""One process of many: serves every parity case of one world size, started once by torchrun.

Rank 0 writes a JSON object: case name -> {"differences": one a call, "seconds"} or {"error": text}.

    torchrun --standalone --nproc_per_node=2 tests/parity/parity_worker.py out.json [pattern of names]
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from decoded_by_hand import decoded_by_hand
from parity_case import PROMPTS, Call, Case
from parity_cases import cases_of
from parity_loads import as_the_case_wants, blind, shift_slice
from parity_reference import Wanted, reference_images

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.models.resolve import resolve_model

TIMEOUT = timedelta(seconds=30)  # a rank that died shows as an error, not as a test that hangs
MEETING_TIMEOUT = 4 * TIMEOUT  # where ranks meet after a case, which one of them may have waited in


def main(output: str, pattern: str = "") -> None:
    """Serve all cases of this world size whose names match."""
    torch.set_num_threads(1)
    # Groups that are formed without a timeout take torch's default, half an hour.
    dist.distributed_c10d.default_pg_timeout = TIMEOUT
    dist.init_process_group("gloo", timeout=TIMEOUT)
    rank = read_rank()
    cluster = Cluster(rank, torch.device("cpu"), dist.new_group(backend="gloo", timeout=MEETING_TIMEOUT))
    cases = [case for case in cases_of(rank.world_size) if re.search(pattern, case.name)]
    references = compute_references(cases, cluster)
    results = {}
    for case in cases:
        results[case.name] = timed(case, cluster, references)
        spare_libraries(case.engine)
    if rank.is_main:
        Path(output).write_text(json.dumps(results, indent=1))
    cluster.close()


@functools.cache
def spare_libraries(_engine: str) -> None:
    """Once an engine is imported, collections need not look at the libraries' half a million objects."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or they complain of leaks at the end


def case_plan(case: Case, call: Call) -> Plan:
    """The plan of one call. Degrees go in after the checks: some cases show why they are refused."""
    kind, of_videos, family = TextToImage, {}, resolve_model(case.model).family
    if family.makes_video:
        kind, of_videos = TextToVideo, {"num_frames": call.frames}
    work = kind(
        model_id=case.model,
        batch_size=call.batch,
        height=call.height_px,
        width=call.width_px,
        inference_steps=case.steps,
        max_sequence_length=case.text_tokens,
        dtype="float32",
        dataset="bundled",
        **of_videos,
    )
    slicing = family.decodes_one and call.batch > 1
    args = BenchmarkArgs(work, engine="diffusers", device="cpu", vae_slicing=slicing)
    plan = make_plan(args, resolve_model(case.model), 1, "cpu", "cpu")
    scale = plan.guidance_scale if case.guidance is None else case.guidance
    return replace(
        plan,
        engine=case.engine,
        parallel=case.degrees,
        guidance_scale=scale,
        optimizations=replace(plan.optimizations, vae_slicing=slicing and call.batch > case.degrees.data),
        negative_prompt=case.negative,
        save_latents=case.decoding,
    )


def batch_of(call: Call) -> Batch:
    """The same prompts and seeds for the engine and for the reference."""
    return Batch(PROMPTS[: call.batch], tuple(range(1000, 1000 + call.batch)))


def compute_references(cases: list[Case], cluster: Cluster) -> dict[Case, torch.Tensor]:
    """One-rank images of plain diffusers, before xfuser is imported; ranks share the work."""
    alone = [case for case in cases if case.against is None and not case.decoding]
    wanted = list(dict.fromkeys(case.reference(call) for case in alone for call in case.calls))
    own = wanted[cluster.rank.rank :: cluster.rank.world_size]
    parts = cluster.all_gather_object({reference: one_rank_images(reference) for reference in own})
    return {reference: images for part in parts for reference, images in part.items()}


def one_rank_images(reference: Case) -> torch.Tensor:
    """diffusers' own pipeline, called as its documentation says; (n, 3, height, width)."""
    (call,) = reference.calls
    batch = batch_of(call)
    wanted = Wanted(
        *(reference.model, batch.prompts, batch.seeds, call.height_px, call.width_px, reference.steps),
        *(reference.guidance, reference.negative, reference.text_tokens, call.frames),
        reference.latents,
    )
    is_sd3 = reference.model.startswith("tiny/sd3")
    change = functools.partial(blind, joint_second=is_sd3) if reference.blind else lambda _pipeline: None
    return reference_images(wanted, change)


def timed(case: Case, cluster: Cluster, references: dict[Case, torch.Tensor]) -> dict[str, Any]:
    """The case's outcome and how long it took."""
    started = time.perf_counter()
    outcome = {**serve(case, cluster, references), "seconds": round(time.perf_counter() - started, 2)}
    if cluster.rank.is_main:
        print(case.name, {key: value for key, value in outcome.items() if key != "traces"}, flush=True)
    return outcome


def serve(case: Case, cluster: Cluster, references: dict[Case, torch.Tensor]) -> dict[str, Any]:
    """Differences of the case's calls, or the ranks' errors; no case spoils the next one."""
    join = functools.partial(decoded_twice, case) if case.decoding else None
    found = generate_together(case, cluster, join)
    if isinstance(found, dict):
        return found
    if case.decoding:
        return {"differences": [distance(*one) for one in found]}
    if case.against is None:
        expected: Any = [references[case.reference(call)] for call in case.calls]
    else:
        expected = generate_together(
            replace(case, degrees=case.against, against=None, without_patches=()), cluster
        )
    if isinstance(expected, dict):
        return expected
    return {"differences": [distance(images, right) for images, right in zip(found, expected, strict=True)]}


def distance(images: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of any pixel; infinite between different shapes and for what is no number."""
    if images.shape != expected.shape or images.isnan().any():
        return float("inf")
    return float((images - expected).abs().max())


def decoded_twice(case: Case, parts: tuple[Generated, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A call's images, and those that one process makes of the latents that its decoder took."""
    (latents,) = {id(part): torch.cat(part.latents) for part in parts if part.latents}.values()
    return assemble(parts), decoded_by_hand(case.model, latents)


def generate_together(
    case: Case, cluster: Cluster, join: Callable[[tuple[Generated, ...]], Any] | None = None
) -> list[Any] | dict[str, Any]:
    """The images of every call, or what `join` makes of the ranks' shares; or the ranks' errors.

    Ranks meet here once, also when one of them has failed in the middle of it.
    """
    own: list[Generated] | str
    try:
        own = generate_all(case, cluster)
    except Exception:
        own = traceback.format_exc()
        start_afresh()  # the other ranks' waiting ends here, with an error of their own
    parts: list[Any] = cluster.all_gather_object(own)
    errors = [part for part in parts if isinstance(part, str)]
    if errors:
        start_afresh()
        return {"error": " | ".join(error.strip().splitlines()[-1] for error in errors), "traces": errors}
    try:
        return [(join or assemble)(held) for held in zip(*parts, strict=True)]
    except AssertionError as wrong:
        return {"error": str(wrong)}


def generate_all(case: Case, cluster: Cluster) -> list[Generated]:
    """Load the case's engine once and serve its calls: what this rank holds of each."""
    from mlenergy.diffusion.engines import load_engine

    plans = [case_plan(case, call) for call in case.calls]
    with as_the_case_wants(case):
        engine: Any = load_engine(plans[0], cluster)
    if case.shifted_rank == cluster.rank.rank:
        shift_slice(engine)
    generated = []
    for plan, call in zip(plans, case.calls, strict=True):
        engine.plan = plan
        with undecoded() if case.latents else nullcontext():
            generated.append(engine.generate(batch_of(call)))
    engine.close()
    gc.collect()  # threads of xfuser's groups of other degrees end with the last reference to them
    return generated


@contextmanager
def undecoded() -> Iterator[None]:
    """Engines ask their pipelines for latents inside of the block, which are of no image's size."""
    from mlenergy.diffusion.engines.diffusers import engine

    ask = engine.call_arguments
    with (
        mock.patch.object(engine, "call_arguments", lambda plan: {**ask(plan), "output_type": "latent"}),
        mock.patch.object(engine, "check_outputs", lambda *_: None),
    ):
        yield


def assemble(parts: tuple[Generated, ...]) -> torch.Tensor:
    """The batch's images; every row has to come from exactly one rank."""
    rows: dict[int, torch.Tensor] = {}
    for part in parts:
        for row, image in enumerate(part.images if part.images is not None else (), part.first_row):
            assert row not in rows, f"row {row} came from two ranks"
            rows[row] = image
    assert rows and sorted(rows) == list(range(len(rows))), f"rows {sorted(rows)} came back"
    return torch.stack([rows[index] for index in sorted(rows)])


def start_afresh() -> None:
    """Drop groups in which a message may still be under way."""
    from mlenergy.diffusion.engines.diffusers import mesh
    from mlenergy.diffusion.engines.xdit.groups import dissolve_groups

    dissolve_groups()
    mesh._meshes.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
