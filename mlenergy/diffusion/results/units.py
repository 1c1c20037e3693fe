"""The unit that a result counts in, and the keys that are named after it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlenergy.diffusion.models.spec import Output


@dataclass(frozen=True)
class Unit:
    """Names of a result's keys, by what was generated; images have schema 1, videos schema 2."""

    name: Output
    schema_version: int

    @property
    def count(self) -> str:
        """Key of how many a window made; also the plural in a text."""
        return f"{self.name}s"

    @property
    def throughput(self) -> str:
        """Key of outputs per second."""
        return f"throughput_{self.name}s_per_sec"

    @property
    def mean_time(self) -> str:
        """Key of the mean seconds per output."""
        return f"avg_time_per_{self.name}"

    @property
    def time(self) -> str:
        """Key of the summary of seconds per output over the iterations."""
        return f"time_per_{self.name}_s"

    @property
    def energy(self) -> str:
        """Key of joules per output, and of their summary."""
        return f"energy_per_{self.name}_j"

    @property
    def energy_above_idle(self) -> str:
        """Key of joules above the idle GPUs' per output."""
        return f"energy_above_idle_per_{self.name}_j"

    @property
    def tflops(self) -> str:
        """Key of the FLOPs of one output, in 10^12."""
        return f"tflops_per_{self.name}"

    @property
    def file(self) -> str:
        """Key of an output's file, relative to the result folder."""
        return self.name

    @property
    def each(self) -> str:
        """One of them in a text: an image, a video."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    def counted(self, number: int) -> str:
        """A number of outputs in words: 1 image, 4 videos."""
        return f"{number} {self.name if number == 1 else self.count}"


IMAGE = Unit("image", 1)
VIDEO = Unit("video", 2)
UNITS = (IMAGE, VIDEO)
SCHEMA_VERSIONS = tuple(unit.schema_version for unit in UNITS)


def unit_of(result: Mapping[str, Any]) -> Unit:
    """The unit of the content of a results.json, which names it where it is not the image."""
    return VIDEO if result.get("unit") == VIDEO.name else IMAGE


def unit_made(output: Output) -> Unit:
    """The unit of what a family makes."""
    return VIDEO if output == VIDEO.name else IMAGE
