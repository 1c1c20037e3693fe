"""Look at a model's folder before anything of it runs: all files there, none of them code. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# They take no part in making an image from a text: the safety checker (and the extractor
# that feeds it) looks at finished images on the host, outside of what is measured.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


def components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Name -> (library, class) of every component that the pipeline has."""
    lists = {
        name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")
    }
    return {
        name: (value[0], value[1])
        for name, value in lists.items()
        if len(value) == 2 and value[0] is not None
    }


def needed_components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Name -> (library, class) of what is loaded."""
    return {name: value for name, value in components(index).items() if name not in _UNUSED}


def left_out(index: dict[str, Any]) -> tuple[str, ...]:
    """Components that the pipeline has and that are not loaded."""
    return tuple(name for name in components(index) if name in _UNUSED)


def check_folder(
    folder: Path, index: dict[str, Any], variant: str | None, allow_pickle: bool, trust_remote_code: bool
) -> None:
    """Refuse a folder that cannot load, or that would run its own code.

    Raises UserError naming the missing files, the pickled component or the custom code.
    """
    if not trust_remote_code:
        _refuse_code(folder, index)
    needed = needed_components(index)
    missing = [line for name in needed for line in _missing(folder / name, variant, allow_pickle)]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}; download the model again")


def _refuse_code(folder: Path, index: dict[str, Any]) -> None:
    needed = needed_components(index)
    code = [name for name, (library, _) in needed.items() if (folder / name / f"{library}.py").exists()]
    if not isinstance(index["_class_name"], str):
        code.insert(0, "its pipeline class")
    if code:
        raise UserError(
            f"{folder} brings its own code ({', '.join(code)}); read it, then give --trust_remote_code"
        )


def _missing(folder: Path, variant: str | None, allow_pickle: bool) -> Iterator[str]:
    if not folder.is_dir():
        yield f"{folder.name}/"
        return
    if not (folder / "config.json").is_file():
        if any(folder.glob("*config.json")):
            return  # a scheduler or a tokenizer: small files, and their loaders name what they miss
        yield f"{folder.name}/config.json"
        return
    # A component that lacks the variant is loaded without it, as diffusers does.
    of_variant = list(folder.glob(f"*.safetensors.index.{variant}.json")) if variant else []
    indexes = of_variant or list(folder.glob("*.safetensors.index.json"))
    shards = {shard for index in indexes for shard in _shards(index)}
    yield from (f"{folder.name}/{shard}" for shard in sorted(shards) if not (folder / shard).is_file())
    if shards or any(folder.glob("*.safetensors")):
        return
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if not pickles:
        yield f"{folder.name}/*.safetensors"
    elif not allow_pickle:
        raise UserError(
            f"{folder} has only pickled weights ({pickles[0]}), which can run code as they load; "
            "convert them to safetensors, or give --allow_pickle if you trust their source"
        )


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
