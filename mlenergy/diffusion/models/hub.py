"""What a pipeline is made of, read from its small JSON files: no torch, no weights.

The planning room asks here before anything loads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub_errors import explain
from mlenergy.diffusion.weights.tiny.folder import is_tiny, tiny_folder

INDEX_FILE = "model_index.json"
_CONFIG_FILES = ("config.json", "scheduler_config.json")


def read_model_index(weights: str, revision: str | None = None) -> dict[str, Any]:
    """The pipeline's class (`_class_name`) and components (name -> [library, class]).

    weights: a folder, a hub id, or a tiny model's name. From the hub only this one file travels.

    Raises UserError where there is no such model, no access, no network, or no valid file.
    """
    index = _read_json(weights, INDEX_FILE, revision)
    if "_class_name" not in index:
        raise UserError(f"{weights}: {INDEX_FILE} names no pipeline class; give a diffusers model")
    return index


def cached_model_index(weights: str, revision: str | None = None) -> dict[str, Any] | None:
    """The index of a hub's model that is in the cache, without asking the hub; None for any other."""
    if local_folder(weights) is not None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(weights, INDEX_FILE, revision=revision)
    return _parsed(Path(path)) if isinstance(path, str) else None


def read_component_config(weights: str, component: str, revision: str | None = None) -> dict[str, Any]:
    """Configuration of one component ("transformer", "unet", "scheduler"), heads and layers for example.

    Raises UserError as `read_model_index` does, and where the pipeline has no such component.
    """
    index = read_model_index(weights, revision)
    if not isinstance(index.get(component), list) or index[component][0] is None:
        has = ", ".join(name for name, value in index.items() if isinstance(value, list) and value[0])
        raise UserError(f"{weights} has no component {component!r}; it has: {has}")
    file = _CONFIG_FILES["scheduler" in component]
    return _read_json(weights, f"{component}/{file}", revision)


def local_folder(weights: str) -> Path | None:
    """Folder of a local or a tiny model (built where need be); None for an id of the hub.

    Raises UserError for a path that does not exist and for text that can be no id.
    """
    if is_tiny(weights):
        return tiny_folder(weights)
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or weights.startswith((".", "~")) or weights.count("/") != 1:
        raise UserError(f"{weights} is no folder and no hub id; give a folder, or an id such as owner/name")
    return None


def _read_json(weights: str, file: str, revision: str | None) -> dict[str, Any]:
    folder = local_folder(weights)
    path = folder / file if folder is not None else _from_hub(weights, file, revision)
    if not path.is_file():
        raise UserError(
            f"{weights} has no {file}; give a model in diffusers' format (a folder with {INDEX_FILE})"
        )
    return _parsed(path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download the model again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; download the model again")
    return value


def _from_hub(weights: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # lazily: --help and tiny models do not need it

    try:
        with _no_retry_lines():
            return Path(hf_hub_download(weights, file, revision=revision))
    except Exception as error:
        raise explain(error, weights, revision) from error


@contextmanager
def _no_retry_lines() -> Iterator[None]:
    """The client warns of each try that fails; where all fail, the user gets one line from here."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
