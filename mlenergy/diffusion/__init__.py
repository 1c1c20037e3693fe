"""Diffusion benchmark: seconds, joules and gigabytes of one generated image.

from mlenergy.diffusion import benchmark, load_results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.version import __version__ as __version__

if TYPE_CHECKING:
    from mlenergy.diffusion.interface import benchmark as benchmark
    from mlenergy.diffusion.interface import load_results as load_results


def __getattr__(name: str) -> Any:
    """Load the Python interface when it is asked for: importing a module of the package stays light."""
    if name in ("benchmark", "load_results"):
        from mlenergy.diffusion import interface

        return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
