"""The only import of xfuser: checks its version, keeps its log lines in Python's logging.

xfuser's own ``__init__`` imports everything, so whatever has to be in place before that
(see cpu.py) is put into its leaf modules first.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from types import ModuleType

from packaging.specifiers import SpecifierSet

from mlenergy.diffusion.errors import UserError

# Both the CPU adapter and the patches replace functions inside xfuser. They were written against
# this version, and against no other: a newer one may have fixed or moved them.
WRITTEN_FOR = SpecifierSet("==0.7.0")


def installed_version() -> str:
    """xfuser's version, or a UserError that says how to get the right one."""
    try:
        version = importlib.metadata.version("xfuser")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "xfuser is not installed; pip install xfuser==0.7.0, or use --engine diffusers"
        ) from None
    if version not in WRITTEN_FOR:
        raise UserError(
            f"xfuser {version} is installed, but the xdit engine was written and tested for {WRITTEN_FOR}; "
            "pip install xfuser==0.7.0, or use --engine diffusers"
        )
    return version


def leaf_module(name: str) -> ModuleType:
    """Import ``xfuser.<name>`` without running xfuser's ``__init__``.

    A bare package object stands in for xfuser while its leaf is imported; the real
    ``__init__`` finds the leaf in ``sys.modules`` later.
    """
    full_name = f"xfuser.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    spec = importlib.util.find_spec("xfuser")
    if spec is None or spec.submodule_search_locations is None:
        raise UserError("xfuser is not installed; pip install xfuser==0.7.0, or use --engine diffusers")
    stand_in = ModuleType("xfuser")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["xfuser"] = stand_in
    try:
        return importlib.import_module(full_name)
    finally:
        del sys.modules["xfuser"]


def import_xfuser() -> ModuleType:
    """The whole package, with its leaves as attributes whichever way they were imported."""
    package = importlib.import_module("xfuser")
    for leaf in ("logger", "envs"):
        setattr(package, leaf, importlib.import_module(f"xfuser.{leaf}"))
    return package


def use_our_logging() -> None:
    """Send xfuser's messages through the root logger, where the run's log file listens.

    xfuser gives every module a handler on stdout at debug level and stops propagation.
    """
    module = leaf_module("logger")
    root = logging.getLogger("xfuser")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.propagate = True
    root.setLevel(logging.NOTSET)
    module.__dict__["init_logger"] = logging.getLogger
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("xfuser.") and isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
