"""The call of one of diffusers' pipelines, read from its source, since planning imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REQUIRED = object()  # the default of an argument without one


@cache
def call_of(class_name: str) -> Mapping[str, Any] | None:
    """Arguments of a pipeline class's `__call__` with their defaults: REQUIRED, or None where not a literal.

    Returns:
        None where the installed diffusers has no such class, or one without a call of its own.
    """
    found = find_spec("diffusers")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "pipelines"
    for path in sorted(folder.rglob("pipeline_*.py")):
        text = path.read_text(encoding="utf-8")
        if f"class {class_name}(" in text:
            return _call_in(ast.parse(text), class_name)
    return None


def _call_in(module: ast.Module, class_name: str) -> Mapping[str, Any] | None:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__call__":
                    return _arguments(part.args)
    return None


def _arguments(arguments: ast.arguments) -> dict[str, Any]:
    names = [one.arg for one in arguments.args[1:]]  # without self
    without = len(names) - len(arguments.defaults)
    defaults = [REQUIRED] * without + [_literal(node) for node in arguments.defaults]
    named = {
        one.arg: REQUIRED if node is None else _literal(node)
        for one, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    return dict(zip(names, defaults, strict=True)) | named


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
