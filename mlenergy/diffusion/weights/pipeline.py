"""Plan -> a diffusers pipeline on this rank's device: the only way weights get in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline

from mlenergy.diffusion.models.hub import cached_model_index, local_folder, read_model_index
from mlenergy.diffusion.models.hub_errors import explain
from mlenergy.diffusion.models.hub_files import check_folder, left_out
from mlenergy.diffusion.weights.lora import merge_lora

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


# Of random weights. Not the run's seed, which draws prompts and noise: a sweep over that keeps its model.
_WEIGHTS_SEED = 0


def load_pipeline(plan: Plan, device: torch.device | str) -> DiffusionPipeline:
    """The pipeline of `plan.weights_from` in `plan.dtype`, every component on `device`, in eval mode.

    The class is the one that model_index.json names. Weights are safetensors, memory-mapped
    and copied straight to the device; `plan.weights_from` may be a folder, a hub id (taken from the
    cache, downloaded where it is not there, see `prepare_weights`) or a tiny model's name.

    Raises UserError in one line: unknown or gated model, no network, missing files, pickles.
    """
    place = torch.device(device)
    if plan.weights == "random":
        return random_pipeline(plan, place)
    folder = _cached(plan) or local_weights(plan)
    index = read_model_index(str(folder))
    check_folder(folder, index, plan.variant, plan.allow_pickle, plan.trust_remote_code)
    try:
        with _current(place):
            pipeline = DiffusionPipeline.from_pretrained(
                folder,
                dtype=getattr(torch, plan.dtype),
                device_map=place.type,
                use_safetensors=_safetensors(plan),
                variant=plan.variant,
                trust_remote_code=plan.trust_remote_code,
                **_left_out(index),
            )
    except (OSError, ValueError) as error:
        raise explain(error, plan.weights_from, plan.revision) from error
    if plan.lora is not None:
        merge_lora(pipeline, plan.lora, plan.allow_pickle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_pipeline(plan: Plan, device: torch.device) -> DiffusionPipeline:
    """The architecture of `plan.spec` with random weights: no download, the same on every rank.

    It is this package's, or that of the folder `plan.weights_from`, whose tokenizers are then used too.
    What building took is told by `mlenergy.diffusion.weights.random.start_report(pipeline)`.

    Raises UserError where there is no architecture of that model, or a file is missing.
    """
    # Only here: a run with real weights has no use for it.
    from mlenergy.diffusion.cost.architecture import architecture_of
    from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline
    from mlenergy.diffusion.weights.random.tokenizers import saved_tokenizers

    model = architecture_of(plan)
    tokenizers = None if model.tokenizers else saved_tokenizers(plan.weights_from)
    pipeline = build_random_pipeline(model, device, getattr(torch, plan.dtype), _WEIGHTS_SEED, tokenizers)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def local_weights(plan: Plan) -> Path:
    """The folder that holds `plan.weights_from`, checked; a tiny model is built, a hub's downloaded.

    From the hub travels only what the pipeline needs, in the format that will be loaded.

    Raises UserError as `load_pipeline` does.
    """
    index = read_model_index(plan.weights_from, plan.revision)
    folder = local_folder(plan.weights_from) or _download(plan, index)
    check_folder(folder, index, plan.variant, plan.allow_pickle, plan.trust_remote_code)
    return folder


def _cached(plan: Plan) -> Path | None:
    """Where `prepare_weights` put a hub's model, asked without the network: N ranks do not ask N times."""
    index = cached_model_index(plan.weights_from, plan.revision)
    if index is None:
        return None
    try:
        return _fetch(plan, index, local_files_only=True)
    except (OSError, ValueError):  # not whole
        return None


def _download(plan: Plan, index: dict[str, Any]) -> Path:
    try:
        return _fetch(plan, index)
    except Exception as error:
        raise explain(error, plan.weights_from, plan.revision) from error


def _fetch(plan: Plan, index: dict[str, Any], local_files_only: bool = False) -> Path:
    folder = DiffusionPipeline.download(
        plan.weights_from,
        revision=plan.revision,
        variant=plan.variant,
        use_safetensors=_safetensors(plan),
        trust_remote_code=plan.trust_remote_code,
        local_files_only=local_files_only,
        **_left_out(index),
    )
    return Path(folder)


def _left_out(index: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = dict.fromkeys(left_out(index))
    if "requires_safety_checker" in index:
        options["requires_safety_checker"] = False
    return options


def _safetensors(plan: Plan) -> bool | None:
    """None lets diffusers take pickles where there is nothing else."""
    return None if plan.allow_pickle else True


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Loaders are told "cuda" alone and take the current one, which is then this rank's."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
