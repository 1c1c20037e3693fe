"""Reads the architecture files beside it, and the configurations of a pipeline's folder or repository.

One JSON file a model: the published ones here, the tiny ones of tests and demo in tiny/. Each
configuration value stands with the id of its source; the file's `sources` says what each id means,
and `unverified` marks what is still to be checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import UNUSED, ModelFolder, read_model
from mlenergy.diffusion.models.spec import is_tiny

UNVERIFIED = "unverified"
OWN_CONFIG = "the component's own config.json"
_WITHOUT_CONFIG = ("tokenizer", *UNUSED)


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
    seed: int | None = None  # of a tiny model's random weights

    @property
    def class_name(self) -> str:
        """The class without its library."""
        return self.class_path.rpartition(".")[2]

    @property
    def is_module(self) -> bool:
        """True where it holds weights (a scheduler and a guider do not)."""
        return not self.class_name.endswith(("Scheduler", "Guidance"))


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer's class and the sizes that decide shapes."""

    name: str
    class_path: str
    vocabulary: int  # entries of the tokenizer; the encoder's table may be padded beyond it
    model_max_length: int
    pad_token: str | None = None  # None: the class's own
    sentinels: int = 100  # T5's <extra_id_0> and so on; part of the vocabulary
    # "library.Class.argument" of a call, or "library.Class.method.argument": the words of its
    # default are one entry each, as in the published vocabulary, so that a template is as long as there.
    words_of: str | None = None


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
    """Ids of the published models whose architecture is part of this package."""
    return tuple(model_id for model_id in _files() if not is_tiny(model_id))


def counted_ids() -> tuple[str, ...]:
    """Those whose work and memory are predicted, by costs that stand in their files."""
    return tuple(model_id for model_id in architecture_ids() if architecture(model_id).costs)


def tiny_ids() -> tuple[str, ...]:
    """Ids of the tiny models, for example "tiny/flux"."""
    return tuple(model_id for model_id in _files() if is_tiny(model_id))


def has_architecture(model_id: str) -> bool:
    """True where the model can be built without weight files."""
    return model_id in _files()


@cache
def architecture(model_id: str) -> Architecture:
    """The architecture of a listed or a tiny model.

    Raises:
        UserError: the package has none for that id; names those it has.
    """
    path = _files().get(model_id)
    if path is None:
        raise UserError(
            f"this package has no architecture of {model_id}, so it cannot be built without weights; "
            f"use one of: {', '.join(architecture_ids())}"
        )
    return _parse(json.loads(path.read_text(encoding="utf-8")))


def architecture_from(model: ModelFolder) -> Architecture:
    """The architecture of a pipeline in diffusers' format, from its small JSON files.

    Raises:
        UserError: a file is missing or is not JSON.
    """
    components = {}
    for name, (library, class_name) in model.components.items():
        if not name.startswith(_WITHOUT_CONFIG):
            values = model.component_config(name).items()
            config = {key: value for key, value in values if not key.startswith("_")}
            components[name] = Component(
                name, f"{library}.{class_name}", config, dict.fromkeys(config, OWN_CONFIG)
            )
    options = {
        key: value for key, value in model.index.items() if key[0] != "_" and not isinstance(value, list)
    }
    return Architecture(model.name, str(model.index["_class_name"]), components, {}, options, {})


def find_architecture(weights: str, revision: str | None = None) -> Architecture:
    """The architecture of an id or a folder: this package's, or that of its own files.

    Raises:
        UserError: its files cannot be had, or are not those of a pipeline.
    """
    if has_architecture(weights):
        return architecture(weights)
    return architecture_from(read_model(weights, revision))


@cache
def _files() -> dict[str, Path]:
    """Model id -> file. The ids are in the files, so that a file's name decides nothing."""
    found = {}
    for path in sorted(Path(__file__).parent.rglob("*.json")):
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
            name: Tokenizer(name, part["class"], **{key: part[key] for key in part if key != "class"})
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
        seed=part.get("seed"),
    )
