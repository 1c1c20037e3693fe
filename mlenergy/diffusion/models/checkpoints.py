"""Models that are published as checkpoints without configurations (VAR, Infinity): their names, anywhere.

Such a model is a file, and its file's name says which of the listed models it is:
FoundationVision/var/var_d16.pth on the hub, or var_d16.pth in a folder, with the VAE's file beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import INDEX_FILE
from mlenergy.diffusion.models.listed import LISTED
from mlenergy.diffusion.models.spec import ModelSpec

MAIN = "transformer"  # the component whose file tells the models of one repository apart


def find_checkpoint(model_id: str) -> ModelSpec | None:
    """The spec of a checkpoint by its hub repository, its folder or its file; None where it is none of these.

    Raises:
        UserError: several models lie there, with the ids to choose from; or a file that is not published.
    """
    of_repository = [spec for spec in _PUBLISHED if model_id == _source(spec)]
    if of_repository:
        return _one(model_id, of_repository, [spec.model_id for spec in of_repository])
    on_hub = next((spec for spec in _PUBLISHED if model_id == f"{_source(spec)}/{_main(spec)}"), None)
    if on_hub is not None:
        return on_hub
    path = Path(model_id).expanduser()
    if path.is_file() or (path.is_dir() and path.name in map(_main, _PUBLISHED)):
        return _of_file(path, str(path.resolve()))
    if not path.is_dir() or (path / INDEX_FILE).exists():
        return None
    found = [spec for spec in _PUBLISHED if (path / _main(spec)).exists()]
    if not found:
        return None
    spec = _one(model_id, found, [str(path / _main(spec)) for spec in found])
    return _of_file(path / _main(spec), str(path.resolve()))


def _of_file(path: Path, model_id: str) -> ModelSpec:
    spec = next((spec for spec in _PUBLISHED if _main(spec) == path.name), None)
    if spec is None or spec.next_scale is None:
        known = ", ".join(_main(spec) for spec in _PUBLISHED)
        raise UserError(
            f"{path} is not one of the checkpoints that are known by name; give a folder with a model in "
            f"diffusers' format, or one of the files {known}"
        )
    folder = str(path.resolve().parent)
    return replace(
        spec,
        model_id=model_id,
        next_scale=replace(spec.next_scale, source=folder),
        source=f"by the name of its file; defaults of {spec.model_id}",
    )


def _one(where: str, found: list[ModelSpec], ids: list[str]) -> ModelSpec:
    if len(found) > 1:
        raise UserError(f"{where} holds {len(found)} models; give one of {', '.join(ids)}")
    return found[0]


def _source(spec: ModelSpec) -> str:
    return "" if spec.next_scale is None else str(spec.next_scale.source)


def _main(spec: ModelSpec) -> str:
    return "" if spec.next_scale is None else spec.next_scale.files[MAIN]


_PUBLISHED = tuple(spec for spec in LISTED if spec.next_scale is not None)
