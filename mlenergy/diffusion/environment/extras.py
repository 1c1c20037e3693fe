"""The optional packages of this distribution, with the versions that fit."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

_DISTRIBUTION = "mlenergy-diffusion"


def missing_extra(package: str, extra: str) -> str | None:
    """A line that says how to install a package of an extra; None where a version that fits is installed.

    The versions are those of pyproject.toml, as they were installed with this distribution.
    """
    fits = _requirement(package, extra)
    install = f"pip install '{package}{'' if fits is None else fits.specifier}'"
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"needs the package {package}; install it: {install}"
    if fits is None or fits.specifier.contains(installed, prereleases=True):
        return None
    return f"does not work with {package} {installed}; install one that fits: {install}"


def _requirement(package: str, extra: str) -> Requirement | None:
    """The extra's line for a package; None where this distribution lies in a folder, not installed."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for line in lines:
        try:
            found = Requirement(line)
        except InvalidRequirement:
            continue
        if found.name == package and found.marker is not None and found.marker.evaluate({"extra": extra}):
            return found
    return None
