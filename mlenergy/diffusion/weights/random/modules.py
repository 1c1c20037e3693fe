"""Component class and configuration -> a module whose parameters exist in shape only."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from accelerate import init_empty_weights

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Component

_LIBRARIES = ("diffusers", "transformers")
_PIPELINES = "diffusers.pipelines"  # some bring a text encoder of their own


def empty_module(component: Component) -> torch.nn.Module:
    """The module with its parameters on the meta device, tied where the class ties them, in eval mode.

    Buffers are real, on the CPU: a position table is computed, not loaded, so it has to exist.

    Raises:
        UserError: the class is not one of diffusers' or transformers'.
    """
    cls = component_class(component.class_path)
    with init_empty_weights(include_buffers=False):
        module = _construct(cls, dict(component.config))
    tie = getattr(module, "tie_weights", None)
    if tie is not None:
        tie()  # on meta the table of T5's encoder and its shared one are still two
    return module.eval()


def component_class(class_path: str) -> type[Any]:
    """The class that "library.Class" names; the library may be one of diffusers' pipelines (kolors).

    Raises:
        UserError: another library, or no such class in the installed one.
    """
    library, _, name = class_path.partition(".")
    module = library if library in _LIBRARIES else f"{_PIPELINES}.{library}"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{class_path} is of neither {' nor '.join(_LIBRARIES)}; it cannot be built without weights"
        ) from error
    if found is None:
        raise UserError(f"the installed {library} has no {name}; install a version that has it")
    return found  # type: ignore[no-any-return]


def _construct(cls: type[Any], config: dict[str, Any]) -> torch.nn.Module:
    config_class = getattr(cls, "config_class", None)
    if config_class is None:
        module = cls(**config)
    else:
        module = cls(config_class(**{key: value for key, value in config.items() if key != "architectures"}))
    assert isinstance(module, torch.nn.Module)
    return module
