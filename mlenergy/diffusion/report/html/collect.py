"""The data of a report: every run as a row, with what many runs share kept once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlenergy.diffusion.report.html.clips import Room, clips_of
from mlenergy.diffusion.report.html.extras import images_of, timeline_of
from mlenergy.diffusion.report.html.published import SOURCE, published_rows
from mlenergy.diffusion.report.html.rows import details_of, row_of
from mlenergy.diffusion.results.units import VIDEO, unit_of
from mlenergy.diffusion.version import __version__

PROMPT_LIMIT = 600  # characters of a prompt that the page shows
_TIMELINES = 300  # runs; each is about 10 kB of the page
_LONG = "…"


@dataclass(frozen=True)
class Limits:
    """Bounds on what makes a page large. What they leave out is said in the page."""

    images_per_run: int = 6
    images: int = 300  # of all runs, videos among them; each is about 6 kB of the page
    clip_bytes: int = 3_000_000  # of a video inside the page; a larger one is linked
    clips_bytes: int = 30_000_000  # of all of them
    timelines: int = _TIMELINES


@dataclass
class Report:
    """Gathers runs one by one, so that only their rows stay in memory."""

    limits: Limits = field(default_factory=Limits)
    page_folder: Path = Path()  # where the page will lie, from which it links videos
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    _details: list[dict[str, Any]] = field(default_factory=list)
    _environments: dict[str, int] = field(default_factory=dict)
    _prompts: dict[str, int] = field(default_factory=dict)
    _images: int = 0
    _timelines: int = 0
    _without_images: int = 0
    _linked: int = 0

    def __post_init__(self) -> None:
        self._room = Room(self.limits.clip_bytes, self.limits.clips_bytes)

    def add(self, result: Mapping[str, Any], folder: Path, name: str) -> None:
        """Take in a run; one whose content is not that of a result is listed as a problem.

        Args:
            result: content of its results.json.
            folder: that holds it.
            name: of the folder, as the report shows it.
        """
        try:
            row = row_of(result, name)
            details = details_of(result, folder)
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            self.problems.append((name, f"results.json cannot be shown: {_words(error)}"))
            return
        row["folder"] = details["folder"]
        row["details"] = len(self._details)
        lines = json.dumps(details["environment"])
        environment = self._environments.setdefault(lines, len(self._environments))
        self._details.append({"command": details["command"], "environment": environment})
        self._add_timeline(row, folder, name)
        self._add_images(row, result, folder, name)
        self.rows.append(row)

    def data(self, summary: str, with_published: bool, now: datetime) -> dict[str, Any]:
        """Everything that the page's script reads."""
        published = list(published_rows()) if with_published else []
        if self._without_images:
            runs = "1 run" if self._without_images == 1 else f"{self._without_images} runs"
            reason = f"those of {runs} are left out: the page holds {self.limits.images} (--images)"
            self.problems.append(("images", reason))
        if self._linked:
            clips = "1 video is" if self._linked == 1 else f"{self._linked} videos are"
            reason = f"{clips} linked: the page holds {self.limits.clips_bytes / 1e6:g} MB (--clips_mb), and "
            reason += f"{self.limits.clip_bytes / 1e6:g} MB each"
            self.problems.append(("videos", reason))
        return {
            "summary": summary,
            "footer": f"Made by mlenergy-diffusion {__version__} on {now:%Y-%m-%d %H:%M %Z}."
            + (f" Published figures: {SOURCE}, three quarters of its rows." if published else ""),
            "published_source": SOURCE,
            "rows": [*self.rows, *published],
            "details": self._details,
            "environments": [json.loads(lines) for lines in self._environments],
            "prompts": list(self._prompts),
            "problems": self.problems,
        }

    def _add_timeline(self, row: dict[str, Any], folder: Path, name: str) -> None:
        if self._timelines >= self.limits.timelines:
            row["timeline_reason"] = (
                f"The report holds {self.limits.timelines} timelines; this run's is left out."
            )
            return
        try:
            row["timeline"] = timeline_of(folder / "timeline.parquet")
        except ValueError as error:
            self.problems.append((name, str(error)))
            row["timeline_reason"] = str(error)
            return
        if row["timeline"] is None:
            row["timeline_reason"] = "No power was sampled in this run."
        else:
            self._timelines += 1

    def _add_images(self, row: dict[str, Any], result: Mapping[str, Any], folder: Path, name: str) -> None:
        left = self.limits.images - self._images
        unit, most = unit_of(result), min(self.limits.images_per_run, left)
        if unit == VIDEO:
            images, problems = clips_of(result, folder, most, self._room, self.page_folder)
        else:
            images, problems = images_of(result, folder, most)
        self._linked += sum("href" in image for image in images)
        if left <= 0 and any(image.get(unit.file) for image in result["generation_results"]):
            self._without_images += 1
        self._images += len(images)
        self.problems += [(name, problem) for problem in problems]
        row["images"] = [
            [self._prompt(image["prompt"]), image["seed"], image["src"]]
            + ([{key: image[key] for key in ("clip", "href") if key in image}] if unit == VIDEO else [])
            for image in images
        ]

    def _prompt(self, text: str) -> int:
        shown = text if len(text) <= PROMPT_LIMIT else text[:PROMPT_LIMIT] + _LONG
        return self._prompts.setdefault(shown, len(self._prompts))


def add_all(report: Report, found: Iterable[tuple[str, Path, Mapping[str, Any]]]) -> None:
    """Take in runs as (name, folder, content)."""
    for name, folder, result in found:
        report.add(result, folder, name)


def _words(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
