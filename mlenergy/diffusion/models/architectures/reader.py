"""Reads the architecture files beside it, and the configurations of a local pipeline folder.

One JSON file a model. Each configuration value stands with the id of its source; the file's
`sources` says what each id means, and `unverified` marks what is still to be checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError

UNVERIFIED = "unverified"
OWN_CONFIG = "the component's own config.json"


@dataclass(frozen=True)
class Published:
    """A published parameter count. `rounding`: relative, where the source gives few digits."""

    parameters: int
    source: str
    rounding: float = 0.0


@dataclass(frozen=True)
class Component:
    """One part of a pipeline: its class and its configuration, each key with its source."""

    name: str
    class_path: str  # "diffusers.FluxTransformer2DModel"
    config: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)  # key -> source, or UNVERIFIED
    published: Published | None = None

    @property
    def class_name(self) -> str:
        """The class without its library."""
        return self.class_path.rpartition(".")[2]

    @property
    def is_module(self) -> bool:
        """Whether it holds weights (a scheduler does not)."""
        return not self.class_name.endswith("Scheduler")


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer's class and the sizes that decide shapes."""

    name: str
    class_path: str
    vocabulary: int  # entries of the tokenizer; the encoder's table may be padded beyond it
    model_max_length: int
    pad_token: str | None = None  # None: the class's own


@dataclass(frozen=True)
class Architecture:
    """Everything that a pipeline is made of, but for the weights."""

    model_id: str
    pipeline_class: str
    components: Mapping[str, Component]  # scheduler included
    tokenizers: Mapping[str, Tokenizer]
    options: Mapping[str, Any]  # further arguments of the pipeline's class
    costs: Mapping[str, Any]  # counted FLOPs and bytes, see mlenergy.diffusion.cost.costs

    @property
    def modules(self) -> dict[str, Component]:
        """The components that hold weights."""
        return {name: part for name, part in self.components.items() if part.is_module}

    @property
    def denoiser(self) -> Component:
        """The part that is called at every step."""
        return self.components["unet" if "unet" in self.components else "transformer"]

    @property
    def text_encoders(self) -> tuple[Component, ...]:
        """The text encoders in call order."""
        return tuple(part for name, part in self.components.items() if name.startswith("text_encoder"))

    def unverified(self) -> tuple[str, ...]:
        """Keys whose values nobody has checked yet, as "component.key"."""
        return tuple(
            f"{part.name}.{key}"
            for part in self.components.values()
            for key, source in part.sources.items()
            if source == UNVERIFIED
        )


def architecture_ids() -> tuple[str, ...]:
    """Ids of the models whose architecture is part of this package."""
    return tuple(_files())


def has_architecture(model_id: str) -> bool:
    """Whether the model can be built without its weights."""
    return model_id in _files()


@cache
def architecture(model_id: str) -> Architecture:
    """The architecture of a listed model.

    Raises:
        UserError: the package has none for that id; names those it has.
    """
    path = _files().get(model_id)
    if path is None:
        raise UserError(
            f"there is no architecture of {model_id} in this package, so it cannot be built without weights; "
            f"use one of: {', '.join(_files())}"
        )
    return _parse(json.loads(path.read_text(encoding="utf-8")))


def architecture_from_folder(folder: str | Path) -> Architecture:
    """The architecture of a pipeline in diffusers' format on disk, from its small JSON files.

    Raises:
        UserError: a file is missing or is not JSON.
    """
    root = Path(folder)
    index = _read(root / "model_index.json")
    entries = {
        name: value
        for name, value in index.items()
        if isinstance(value, list) and value and value[0] is not None
    }
    components = {
        name: _component_of(root, name, f"{library}.{class_name}")
        for name, (library, class_name) in entries.items()
        if not name.startswith(("tokenizer", "feature_extractor", "safety_checker", "image_encoder"))
    }
    plain = {name: value for name, value in index.items() if name[0] != "_" and not isinstance(value, list)}
    return Architecture(str(root), str(index["_class_name"]), components, {}, plain, {})


def _component_of(root: Path, name: str, class_path: str) -> Component:
    file = "scheduler_config.json" if name == "scheduler" else "config.json"
    config = {key: value for key, value in _read(root / name / file).items() if not key.startswith("_")}
    return Component(name, class_path, config, dict.fromkeys(config, OWN_CONFIG))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a pipeline in diffusers' format") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; give a pipeline in diffusers' format")
    return value


@cache
def _files() -> dict[str, Path]:
    """Model id -> file. The ids are in the files, so that a file's name decides nothing."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        found[str(json.loads(path.read_text(encoding="utf-8"))["model_id"])] = path
    return found


def _parse(data: Mapping[str, Any]) -> Architecture:
    return Architecture(
        model_id=data["model_id"],
        pipeline_class=data["pipeline"],
        components={
            name: _parse_component(name, part, data["sources"]) for name, part in data["components"].items()
        },
        tokenizers={
            name: Tokenizer(
                name, part["class"], part["vocabulary"], part["model_max_length"], part.get("pad_token")
            )
            for name, part in data["tokenizers"].items()
        },
        options={key: value for key, (value, _source) in data["pipeline_options"].items()},
        costs=data.get("costs", {}),
    )


def _parse_component(name: str, part: Mapping[str, Any], legend: Mapping[str, str]) -> Component:
    published = part.get("published_parameters")
    return Component(
        name=name,
        class_path=part["class"],
        config={key: value for key, (value, _source) in part["config"].items()},
        sources={
            key: source if source == UNVERIFIED else legend[source]
            for key, (_value, source) in part["config"].items()
        },
        published=None if published is None else Published(*published),
    )
