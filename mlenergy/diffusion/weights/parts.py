"""Components that a model's own folder lacks and another repository has (HiDream's Llama)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import ModelFolder, download_folder, explain
from mlenergy.diffusion.weights.random.modules import component_class

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")  # of one folder: no weights in other formats


def parts_elsewhere(plan: Plan, folder: ModelFolder) -> Mapping[str, tuple[str, str]]:
    """Component -> (repository, class) of those that the folder does not hold."""
    known = plan.spec.family.parts_from
    return {name: where for name, where in known.items() if not (folder.path / name).is_dir()}


def download_parts(plan: Plan, folder: ModelFolder) -> None:
    """Bring them into the hub's cache, each repository once.

    Raises:
        UserError: one is gated, or there is no network; the line says how else it can be given.
    """
    wanted = parts_elsewhere(plan, folder)
    for repository in sorted({repository for repository, _ in wanted.values()}):
        _folder_of(repository, folder, wanted)


def part_folders(plan: Plan, folder: ModelFolder) -> dict[str, Path]:
    """Component -> folder on this machine of those that come from another repository.

    Raises:
        UserError: as `download_parts`.
    """
    wanted = parts_elsewhere(plan, folder)
    return {name: _folder_of(repository, folder, wanted) for name, (repository, _) in wanted.items()}


def load_parts(
    plan: Plan, folder: ModelFolder, paths: Mapping[str, Path], device: torch.device
) -> dict[str, Any]:
    """Component -> module (in the plan's dtype, on `device`) or tokenizer, for the pipeline's loader.

    paths: of `part_folders`.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    loaded = {}
    for name, (repository, class_path) in parts_elsewhere(plan, folder).items():
        module = {} if name.startswith("tokenizer") else _module_options(plan, device)
        try:
            loaded[name] = component_class(class_path).from_pretrained(paths[name], **module)
        except (OSError, ValueError) as error:
            raise explain(error, repository, None) from error
    return loaded


def _module_options(plan: Plan, device: torch.device) -> dict[str, Any]:
    return {"dtype": getattr(torch, plan.dtype), "device_map": str(device), "use_safetensors": True}


def _folder_of(repository: str, folder: ModelFolder, wanted: Mapping[str, tuple[str, str]]) -> Path:
    names = " and ".join(sorted(name for name, (where, _) in wanted.items() if where == repository))
    try:
        return download_folder(repository, _FILES, None)
    except UserError as error:
        raise UserError(
            f"{folder.name} has no {names}, which come from {repository}: {error}. Or give a folder of the "
            f"model with {names} in it"
        ) from error
