"""A plan -> its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.models.architectures.reader import (
    OWN_CONFIG,
    Architecture,
    Component,
    architecture,
    architecture_from_folder,
    has_architecture,
)

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_NOT_COUNTED = ("tokenizer", "feature_extractor", "safety_checker", "image_encoder", "scheduler")


def architecture_of(plan: Plan) -> Architecture:
    """The architecture of the plan's model: this package's, or that of its folder or repository.

    Raises:
        UserError: there is none, or the repository cannot be reached.
    """
    if has_architecture(plan.spec.model_id):
        return architecture(plan.spec.model_id)
    # Asking for a repository's files may mean asking the hub, so its client is imported here.
    from mlenergy.diffusion.models.hub import local_folder

    folder = local_folder(plan.weights_from)
    return architecture_from_folder(folder) if folder is not None else _from_hub(plan)


def _from_hub(plan: Plan) -> Architecture:
    from mlenergy.diffusion.models.hub import read_component_config, read_model_index

    index = read_model_index(plan.weights_from, plan.revision)
    components = {}
    for name, entry in index.items():
        if not isinstance(entry, list) or entry[0] is None or name.startswith(_NOT_COUNTED):
            continue
        config = read_component_config(plan.weights_from, name, plan.revision)
        plain = {key: value for key, value in config.items() if not key.startswith("_")}
        components[name] = Component(name, ".".join(entry), plain, dict.fromkeys(plain, OWN_CONFIG))
    options = {key: value for key, value in index.items() if key[0] != "_" and not isinstance(value, list)}
    return Architecture(plan.weights_from, str(index["_class_name"]), components, {}, options, {})
