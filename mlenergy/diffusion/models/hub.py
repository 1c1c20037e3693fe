"""A model in diffusers' format: its folder, its small JSON files, and the hub that they may come from.

Planning asks here before anything loads, and loading checks a folder here before anything of it
runs. No torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError

INDEX_FILE = "model_index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# They take no part in making an image from a text: the safety checker (and the extractor
# that feeds it) looks at finished images on the host, outside of what is measured.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


_NO_FOLDER_NO_ID = "{weights} is neither a folder nor a hub id; give a folder, or an id such as owner/name"
# Class in huggingface_hub.errors -> what to tell the user; the most specific first.
_REFUSALS = {
    "GatedRepoError": "{weights} is gated: accept its licence at {hub}/{weights}, "
    "then set HF_TOKEN to a token that may read it",
    "RevisionNotFoundError": "{weights} has no revision {revision!r}; name one that it has",
    "RepositoryNotFoundError": "{weights} is not on the hub, or is private; check the id, or set HF_TOKEN "
    "to a token for it",
    "RemoteEntryNotFoundError": "{weights} is not in diffusers' format: {reason}; give another model",
    "HFValidationError": _NO_FOLDER_NO_ID,
    "HfHubHTTPError": "the hub refused {weights}: {reason}; try again later",
}
_UNREACHABLE = (
    "{weights} is not in the local cache and the hub cannot be reached; check the network (and that "
    "HF_HUB_OFFLINE is not set), or give a folder that holds the model"
)


@dataclass(frozen=True)
class ModelFolder:
    """A pipeline's folder on this machine and its model_index.json, read and checked once.

    path: of a model on the hub, the snapshot in the cache; it may hold only the files asked for so far.
    index: the pipeline's class (`_class_name`), its components (name -> [library, class]), its options.
    hub_id: where files that are missing come from; None for a folder that the user gave.
    """

    path: Path
    index: Mapping[str, Any]
    hub_id: str | None = None

    @property
    def name(self) -> str:
        """The model as messages name it."""
        return self.hub_id or str(self.path)

    @property
    def components(self) -> dict[str, tuple[str, str]]:
        """Name -> (library, class) of every component that the pipeline has."""
        lists = {
            name: value
            for name, value in self.index.items()
            if isinstance(value, list) and not name.startswith("_")
        }
        return {
            name: (value[0], value[1])
            for name, value in lists.items()
            if len(value) == 2 and value[0] is not None
        }

    @property
    def loaded_components(self) -> dict[str, tuple[str, str]]:
        """Those of `components` that are loaded."""
        return {name: value for name, value in self.components.items() if name not in UNUSED}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Components that the pipeline has and that are not loaded."""
        return tuple(name for name in self.components if name in UNUSED)

    def component_config(self, component: str) -> dict[str, Any]:
        """Configuration of one component ("transformer", "unet", "scheduler"): heads and layers, for example.

        Raises:
            UserError: the pipeline has no such component, or its file cannot be had.
        """
        if component not in self.components:
            known = ", ".join(self.components)
            raise UserError(f"{self.name} has no component {component!r}; it has: {known}")
        kind = next((kind for kind in ("scheduler", "guider") if kind in component), None)
        file = f"{component}/config.json" if kind is None else f"{component}/{kind}_config.json"
        path = self.path / file
        if self.hub_id is not None and not path.is_file():
            # A snapshot's folder is named for its commit: all files of a model are of one commit.
            path = _from_hub(self.hub_id, file, revision=self.path.name)
        return _read_object(path, self.name)

    def check(
        self,
        *,
        variant: str | None,
        allow_pickle: bool,
        trust_remote_code: bool,
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        """Refuse a folder that cannot load, or that would run its own code.

        elsewhere: components that come from another repository.

        Raises:
            UserError: names the missing files, the pickled component or the custom code.
        """
        needed = {name: kind for name, kind in self.loaded_components.items() if name not in elsewhere}
        if not trust_remote_code:
            code = [name for name, (lib, _) in needed.items() if (self.path / name / f"{lib}.py").exists()]
            if not isinstance(self.index["_class_name"], str):
                code.insert(0, "its pipeline class")
            if code:
                raise UserError(
                    f"{self.path} brings its own code ({', '.join(code)}); read it, then give "
                    "--trust_remote_code"
                )
        missing = [line for name in needed for line in _missing(self.path / name, variant, allow_pickle)]
        if missing:
            raise UserError(f"{self.path} lacks {', '.join(missing)}; download the model again")


def read_model(weights: str, revision: str | None = None) -> ModelFolder:
    """The model of a folder or a hub id. From the hub only model_index.json travels.

    Raises:
        UserError: there is no such model, no access, no network, or no valid file.
    """
    folder = Path(weights).expanduser()
    hub_id = None
    if folder.is_dir():
        path = folder / INDEX_FILE
    elif folder.is_absolute() or weights.startswith((".", "~")) or weights.count("/") != 1:
        raise UserError(_NO_FOLDER_NO_ID.format(weights=weights))
    else:
        path, hub_id = _from_hub(weights, INDEX_FILE, revision), weights
    index = _read_object(path, weights)
    if "_class_name" not in index:
        raise UserError(f"{weights}: {INDEX_FILE} names no pipeline class; give a diffusers model")
    return ModelFolder(path.parent, index, hub_id)


def explain(error: BaseException, weights: str, revision: str | None) -> UserError:
    """The UserError to raise for an error of the hub's client or of diffusers' loader.

    Diffusers falls back to its cache when the hub refuses, so the true reason may be
    the cause of what it raises: the whole chain is looked at.
    """
    if isinstance(error, UserError):
        return error
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    chain = list(_chain(error))
    for kind, line in _REFUSALS.items():
        found = next((link for link in chain if isinstance(link, getattr(hub, kind))), None)
        if found is not None:
            words = {"weights": weights, "revision": revision, "reason": _first_line(found)}
            return UserError(line.format(hub=constants.ENDPOINT, **words))
    unreachable = (hub.LocalEntryNotFoundError, ConnectionError)
    if any(isinstance(link, unreachable) or _is_of_httpx(link) for link in chain):
        return UserError(_UNREACHABLE.format(weights=weights))
    return UserError(f"{weights} cannot be loaded: {_first_line(error)} Check its files and the options.")


def _read_object(path: Path, weights: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{weights} has no {path.name}; give a model in diffusers' format (a folder with {INDEX_FILE})"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download the model again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; download the model again")
    return value


def download_file(hub_id: str, file: str, revision: str | None) -> Path:
    """One file of a repository, from the hub or its cache.

    Raises:
        UserError: no such repository or file, no access, no network.
    """
    return _from_hub(hub_id, file, revision)


def download_folder(hub_id: str, patterns: Sequence[str], revision: str | None) -> Path:
    """The files of a repository that match any of the patterns, from the hub or its cache.

    Raises:
        UserError: no such repository, no access, no network.
    """
    from huggingface_hub import snapshot_download

    try:
        with _no_retry_lines():
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:
        raise explain(error, hub_id, revision) from error


def _from_hub(hub_id: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # lazily: --help and tiny models do not need it

    try:
        with _no_retry_lines():
            return Path(hf_hub_download(hub_id, file, revision=revision))
    except Exception as error:
        raise explain(error, hub_id, revision) from error


@contextmanager
def _no_retry_lines() -> Iterator[None]:
    """Silence the client's warning of each attempt that fails: where all fail, the user gets one line."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _missing(folder: Path, variant: str | None, allow_pickle: bool) -> Iterator[str]:
    """Files that a component's folder lacks, as "component/file".

    Raises:
        UserError: all its weights are pickled, and pickles are not allowed.
    """
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
    shards = {shard for index in indexes for shard in _read_object(index, folder.name)["weight_map"].values()}
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


def _is_of_httpx(error: BaseException) -> bool:
    """The hub's client speaks through httpx, whose transport errors are not ConnectionErrors."""
    return any(kind.__module__.startswith("httpx") for kind in type(error).__mro__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
