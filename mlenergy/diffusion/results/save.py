"""The files of a finished run: requests, images, timeline, and results.json as the last of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.attention import kernel_names
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import write_json, written_aside
from mlenergy.diffusion.results.build import SCHEMA_VERSION
from mlenergy.diffusion.results.digest import ALGORITHM, digests_of_files, is_as_written, sealed
from mlenergy.diffusion.results.lock import check_held
from mlenergy.diffusion.results.media import save_latents, save_outputs
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_whole, read_result
from mlenergy.diffusion.results.swap import replaced_result
from mlenergy.diffusion.results.units import unit_of

if TYPE_CHECKING:
    import torch

    from mlenergy.diffusion.measure.outputs import Pixels
    from mlenergy.diffusion.measure.samples import Timeline
    from mlenergy.diffusion.prompts.sampling import PromptSet, Request
    from mlenergy.diffusion.results.build import RunRecord

_STOPPED_IMAGES_S = 5.0  # with the window that was running, within the time after which a stop is enforced


def save_run(
    paths: RunPaths,
    record: RunRecord,
    pixels: Sequence[Pixels],
    result: Mapping[str, Any],
    latents: Sequence[torch.Tensor] = (),
) -> dict[str, Any]:
    """Write every file of a run, results.json last, and put them in the place of an earlier result's.

    Args:
        paths: of the run; its lock has to be held.
        record: what the result was built from.
        pixels: each window's outputs, uint8, images (n, height, width, 3) or videos (n, frames, height,
            width, 3); empty where they are not saved.
        result: the content of results.json, without its digests.
        latents: of each output, on the host; empty where they are not saved.

    Returns:
        The digests, to be kept in every later content of results.json.

    Raises:
        UserError: a file cannot be written. The earlier result is untouched.
    """
    with suppress(UserError):  # images take a while: whatever ends the run meanwhile, its numbers are here
        key = unit_of(result).file
        without = [
            {name: None if name in (key, "latents") else value for name, value in output.items()}
            for output in result["generation_results"]
        ]
        save_interrupted(paths, {**result, "generation_results": without})
    with replaced_result(paths) as new:
        save_requests(new, record.prompts)
        if pixels:
            import numpy as np

            save_outputs(new, record.measured_requests, np.concatenate(list(pixels)), record.plan.fps)
        if latents:
            save_latents(new, record.measured_requests, latents)
        if record.measurement.timeline is not None:
            save_timeline(new, record.measurement.timeline)
        digests = digests_of_files(new)
        save_result(new, {**result, "digests": digests})
    return digests


def save_interrupted(paths: RunPaths, result: Mapping[str, Any]) -> None:
    """Write results_interrupted.json: of a result's form, with what was measured before the run's end.

    Raises:
        UserError: the file cannot be written.
    """
    digests: dict[str, Any] = {"algorithm": ALGORITHM, "requests": None, "files": {}}
    write_json(paths.interrupted, sealed({**result, "digests": digests}))


def save_stopped(
    paths: RunPaths,
    result: Mapping[str, Any],
    requests: Sequence[Request],
    pixels: Sequence[Pixels],
    limit_s: float = _STOPPED_IMAGES_S,
) -> None:
    """Write what a stopped run has measured and, for a while, its images; an earlier result's stay.

    Args:
        paths: of the run; its lock has to be held.
        result: of a result's form, without names of images.
        requests: of the measured images.
        pixels: each window's images; empty where they are not saved.
        limit_s: time for images: what stops a run kills it when it does not end.

    Raises:
        UserError: the numbers cannot be written.
    """
    save_interrupted(paths, result)
    if not pixels or paths.results.exists():
        return
    outputs, key = [dict(output) for output in result["generation_results"]], unit_of(result).file
    begin_s = time.monotonic()
    in_order = zip(outputs, requests, itertools.chain.from_iterable(pixels), strict=True)
    with suppress(UserError):  # the numbers are safe
        for output, request, array in in_order:
            if time.monotonic() - begin_s > limit_s:
                break
            [output[key]] = save_outputs(paths, [request], array[None], result["configuration"].get("fps"))
    save_interrupted(paths, {**result, "generation_results": outputs})


def save_requests(paths: RunPaths, prompts: PromptSet) -> None:
    """Write requests.json: every prompt in full, its seed, and where it is from.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "provenance": prompts.provenance,
        "requests": [asdict(r) for r in prompts.requests],
        "warmup_requests": [asdict(r) for r in prompts.warmup_requests],
    }
    write_json(paths.requests, content)


def save_result(paths: RunPaths, result: Mapping[str, Any]) -> None:
    """Write results.json, the last file of a run, with the digest of its content: its numbers are safe.

    Raises:
        ValueError: a figure is NaN or infinite.
        UserError: the file cannot be written.
    """
    write_json(paths.results, sealed(result))


def pending_effects(needs_look: bool) -> dict[str, Any]:
    """Keys of a result whose effects nobody has looked at yet.

    Args:
        needs_look: an optimization was asked for that may turn out to have done nothing; until it is
            known, the result does not count as complete.
    """
    unknown = {"effects": None, "effects_reason": "not looked at yet"}
    unknown |= {"attention_backend": None, "attention_backend_reason": "not looked at yet"}
    return unknown | {"effects_pending": needs_look, "effects_failed": []}


def found_effects(effects: Sequence[Mapping[str, Any]], no_effect: Sequence[str]) -> dict[str, Any]:
    """Keys of a result whose effects are known.

    Args:
        effects: every rank's record, in rank order.
        no_effect: a line for each optimization that changed nothing and should have.
    """
    known = {"effects": list(effects), "effects_reason": None, "effects_pending": False}
    return known | _attention_backend(effects) | {"effects_failed": list(no_effect)}


def _attention_backend(effects: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """The kernels that the denoiser ran on all ranks, or the first reason why a rank's are not known."""
    records = [rank["attention"] for rank in effects]
    unknown = next((record["reason"] for record in records if record["kernels"] is None), None)
    if unknown is not None:
        return {"attention_backend": None, "attention_backend_reason": unknown}
    ran = kernel_names({name: calls for record in records for name, calls in record["kernels"].items()})
    return {"attention_backend": ran, "attention_backend_reason": None}


def save_effects_reason(paths: RunPaths, reason: str) -> None:
    """Note in results.json why its effects are not known; nothing else of it changes.

    Raises:
        UserError: the file cannot be written, or the folder is no longer the one that was locked.
    """
    check_held(paths.lock)
    result = read_result(paths.results)
    if result is not None and is_as_written(result):
        save_result(paths, {**result, "effects_reason": reason, "attention_backend_reason": reason})


def accept_no_effect(paths: RunPaths) -> bool:
    """Turn a result that was kept as `effects_failed` into a complete one; its lines become warnings.

    Returns:
        Whether there was one; its lock has to be held.

    Raises:
        UserError: it was changed after it was written, which a new digest would hide.
    """
    result = read_result(paths.results)
    if result is None or not result.get("effects_failed") or not is_whole(paths, result):
        return False
    if not is_as_written(result):
        raise UserError(
            f"{paths.results} was changed after it was written; --overwrite_results measures again"
        )
    warnings = [*result["warnings"], *no_effect_warnings(result["effects_failed"])]
    save_result(paths, {**result, "effects_failed": [], "warnings": warnings})
    return True


def no_effect_warnings(lines: Sequence[str]) -> list[dict[str, str]]:
    """Entries of a result's `warnings`, one a line."""
    return [{"code": "no_effect", "message": line} for line in lines]


def save_timeline(paths: RunPaths, timeline: Timeline) -> None:
    """Write timeline.parquet: one row a sample, the period in the file's metadata.

    Raises:
        UserError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = asdict(timeline)
    period_s = columns.pop("period_s")
    # Named, since a column that the driver never answered holds nothing to tell its type by.
    texts, counts = ("node", "uuid"), ("temperature_c", "sm_clock_mhz", "event_reasons", "window")
    kinds = dict.fromkeys(texts, pa.string()) | dict.fromkeys(counts, pa.int64())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    table = pa.table(columns, schema=schema).replace_schema_metadata({"period_s": repr(period_s)})
    with written_aside(paths.timeline) as aside:
        pq.write_table(table, aside)
