"""Lines of text that look alike on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from mlenergy.diffusion.config.parallelism import MODES
from mlenergy.diffusion.models.spec import Mode

_LABEL_WIDTH = 15


def console_for(stream: TextIO) -> Console:
    """A console that colours on a terminal only, and never guesses colours into text."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def title(text: str) -> Text:
    """A heading."""
    return Text(shown(text), style="bold")


def labelled(rows: Iterable[tuple[str, str]], style: str = "", width: int = _LABEL_WIDTH) -> list[Text]:
    """One line a row: the label in a column of its own, then the value however long it is."""
    return [
        Text.assemble(("  " + label.ljust(width), "dim"), (shown(value), style), overflow="ignore")
        for label, value in rows
    ]


def number(value: float) -> str:
    """Four significant digits, or all before the point; no exponent from a ten-thousandth to a billion."""
    if value == 0 or not 1e-4 <= abs(value) < 1e9:
        return f"{value:.4g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return format(Decimal(f"{value:.4g}"), "f")


def energy(joules: float) -> str:
    """Joules, or kilojoules from ten thousand on."""
    return f"{number(joules)} J" if abs(joules) < 10_000 else f"{number(joules / 1000)} kJ"


def parallelism_text(parallel: Mapping[str, Any], world_size: int, steps: int) -> str:
    """The degrees as a product, with what they make."""
    shown: tuple[Mode, ...] = ("ulysses", "ring", "cfg", "data", "pipefusion", "tensor")
    degrees = [
        f"{MODES[mode].label} {parallel[mode]}"
        for mode in shown
        if parallel[mode] > 1 or mode in ("ulysses", "ring")
    ]
    more = f", {MODES['parallel-vae'].label}" if parallel["parallel_vae"] else ""
    processes = "1 process" if world_size == 1 else f"{world_size} processes"
    return f"{' x '.join(degrees)} = {processes}{more}{_pipefusion_text(parallel, steps)}"


def _pipefusion_text(parallel: Mapping[str, Any], steps: int) -> str:
    """Its patches and synchronous steps; the others use activations of the step before, hence approximate."""
    if parallel["pipefusion"] == 1:
        return ""
    patches = parallel["num_pipeline_patch"] or parallel["pipefusion"]
    synchronous = parallel["pipefusion_warmup_steps"]
    exact = patches == 1 or synchronous >= steps
    return f", {patches} patches, {synchronous} synchronous steps ({'exact' if exact else 'approximate'})"


def shown(text: str) -> str:
    """Control characters as escapes, so that no text acts on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
