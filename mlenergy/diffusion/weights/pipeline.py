"""Folder and plan -> a diffusers pipeline on this rank's device: the only way weights get in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils

from mlenergy.diffusion.measure.window import synchronize
from mlenergy.diffusion.models.architectures.reader import architecture, architecture_from
from mlenergy.diffusion.models.hub import ModelFolder, explain
from mlenergy.diffusion.weights.files import component_files
from mlenergy.diffusion.weights.lora import merge_lora
from mlenergy.diffusion.weights.parts import load_parts, part_folders
from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline
from mlenergy.diffusion.weights.random.tokenizers import saved_tokenizers
from mlenergy.diffusion.weights.reading import note_reading

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

# Of random weights. Not the run's seed, which draws prompts and noise: a sweep over that keeps its model.
_WEIGHTS_SEED = 0


def load(folder: ModelFolder | None, plan: Plan, device: torch.device | str) -> DiffusionPipeline:
    """The pipeline in `plan.dtype`, every component on `device`, in eval mode, its LoRA merged.

    The class is the one that model_index.json names. Weights are safetensors, memory-mapped and copied
    straight to the device (`reading.py` says how). Under random weights nothing but the folder's
    configurations and tokenizers is read, and without a folder nothing at all; every rank makes the same
    values.

    folder: what `per_node.locate` found for this plan.

    Raises:
        UserError: a file cannot be read, or the LoRA does not fit.
    """
    place = torch.device(device)
    pipeline = _random(folder, plan, place) if plan.weights == "random" else _saved(folder, plan, place)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def loader_options(plan: Plan, folder: ModelFolder) -> dict[str, Any]:
    """Arguments that diffusers' download and its loader share."""
    unused: dict[str, Any] = dict.fromkeys(folder.left_out)
    if "requires_safety_checker" in folder.index:
        unused["requires_safety_checker"] = False
    return {
        "variant": plan.variant,
        "use_safetensors": None if plan.allow_pickle else True,  # None: pickles where there is nothing else
        "trust_remote_code": plan.trust_remote_code,
        **unused,
    }


def _saved(folder: ModelFolder | None, plan: Plan, device: torch.device) -> Any:
    assert folder is not None
    parts = part_folders(plan, folder)
    began_s = time.perf_counter()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder.path,
            dtype=getattr(torch, plan.dtype),
            device_map=_device_map(device),
            **load_parts(plan, folder, parts, device),
            **loader_options(plan, folder),
        )
    except (OSError, ValueError) as error:
        raise explain(error, plan.weights_from, plan.revision) from error
    synchronize(device)  # copies to a GPU are not waited for
    seconds = time.perf_counter() - began_s
    places = {name: parts.get(name, folder.path / name) for name in folder.loaded_components}
    files = [path for place in places.values() for path in component_files(place, plan.variant)]
    note_reading(pipeline, files, seconds)
    if plan.lora is not None:
        merge_lora(pipeline, plan.lora, plan.allow_pickle)
    return pipeline


def _device_map(device: torch.device) -> str:
    """The device as the pipeline's loader takes it, with its index.

    Diffusers 0.42.1 knows "cuda" alone, the current device. That is one of each thread, so that threads that
    read shards would all fill the first GPU. Its components take any device.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if str(device) not in pipeline_utils.SUPPORTED_DEVICE_MAP:
        pipeline_utils.SUPPORTED_DEVICE_MAP.append(str(device))
    return str(device)


def _random(folder: ModelFolder | None, plan: Plan, device: torch.device) -> Any:
    dtype = getattr(torch, plan.dtype)
    if folder is None:
        return build_random_pipeline(architecture(plan.weights_from), device, dtype, _WEIGHTS_SEED)
    tokenizers = saved_tokenizers(folder)
    return build_random_pipeline(architecture_from(folder), device, dtype, _WEIGHTS_SEED, tokenizers)
