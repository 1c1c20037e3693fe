"""Constants as a file: fitted to runs, with their source and errors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from mlenergy.diffusion.forecast.errors import Miss, summary
from mlenergy.diffusion.forecast.fitting import fit
from mlenergy.diffusion.forecast.formula import POWER, TIME
from mlenergy.diffusion.forecast.observed import Observed

_DIGITS = 6


def content_of(rows: Sequence[Observed], found: Sequence[Miss], source: str) -> dict[str, Any]:
    """What a file of constants holds."""
    fitted = fit(rows)
    return {
        "source": source,
        "runs": len(rows),
        "fitted_with": f"scipy {version('scipy')}",
        "units": {name: constant.unit for name, constant in (TIME | POWER).items()},
        "time": rounded(fitted.time),
        "power": rounded(fitted.power),
        "models": rounded(fitted.models),
        "errors": rounded(summary(found)),
    }


def rounded(value: Any) -> Any:
    """Numbers with as many digits as a file of constants keeps."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
