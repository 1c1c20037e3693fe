"""Results of one set-up pooled: its starts as one mean with one interval, and what makes it doubtful."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from mlenergy.diffusion.measure.starts import (
    Interval,
    StartSummary,
    errors_of,
    interval_of,
    mean_of,
    scatter_of,
)
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.units import Unit

FigureName = Literal["seconds", "joules", "memory"]
_ALL: tuple[FigureName, ...] = ("seconds", "joules", "memory")
_TIME: tuple[FigureName, ...] = ("seconds", "joules")

# Figures that each warning makes doubtful (docs/measuring.md, docs/results.md). A code that is not here
# makes all of them so.
DOUBTFUL: dict[str, tuple[FigureName, ...]] = {
    **dict.fromkeys(("drift", "outlier", "wide_interval", "throttle", "shared_gpu"), _TIME),
    **dict.fromkeys(("above_peak_flops", "no_time", "stages_exceed_window"), _TIME),
    **dict.fromkeys(("above_power_limit", "below_idle_power"), ("joules",)),
    "above_device_memory": ("memory",),
    **dict.fromkeys(("short_window", "power_mismatch", "sampled_power"), ("joules",)),
    **dict.fromkeys(("counter_backwards", "counter_stood_still", "counter_unreadable"), ("joules",)),
    # About stages, timelines, processors' joules and prompts; a power limit is a setting.
    **dict.fromkeys(("other_time", "steps_unknown", "no_timeline", "cpu_counter", "period_widened"), ()),
    **dict.fromkeys(("power_cap", "no_similarity", "repeated_prompts"), ()),
    **dict.fromkeys(("images_not_finite", "no_effect"), _ALL),
}


@dataclass(frozen=True)
class SetUp:
    """One set-up on one platform, started once or several times."""

    starts: tuple[ResultRecord, ...]

    @property
    def first(self) -> ResultRecord:
        """A result of it; what makes it a set-up is equal in all of them."""
        return self.starts[0]

    @property
    def unit(self) -> Unit:
        """What its figures count, equal in all of its results."""
        return self.first.counted

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings by name."""
        return dict(json.loads(self.first.settings_json or "{}"))

    @cached_property
    def versions(self) -> dict[str, Any]:
        """Versions by name."""
        return dict(json.loads(self.first.versions_json or "{}"))

    @cached_property
    def hardware(self) -> dict[str, Any]:
        """GPUs and processors by name."""
        return dict(json.loads(self.first.hardware_json or "{}"))

    @cached_property
    def seconds(self) -> Figure:
        """Seconds per image or video."""
        return Figure([_summary(s, s.time_mean_s, s.time_stdev_s) for s in self.starts])

    @cached_property
    def joules(self) -> Figure | None:
        """Joules of all GPUs per image or video; None where a start has none."""
        known = [one for one in self.starts if one.energy_mean_j is not None]
        if len(known) < len(self.starts):
            return None
        return Figure([_summary(s, s.energy_mean_j, s.energy_stdev_j) for s in known])

    @property
    def outputs_per_s(self) -> float:
        """Images or videos per second: the inverse of the seconds per one."""
        return 1 / self.seconds.mean

    @property
    def iteration_stdev_s(self) -> float | None:
        """Standard deviation (n - 1) of the seconds per image or video over all iterations of all starts."""
        counts = [one.iterations_count or 1 for one in self.starts]
        means = [one.time_mean_s or 0.0 for one in self.starts]
        stdevs = [one.time_stdev_s for one in self.starts]
        if sum(counts) < 2 or any(s is None and n > 1 for s, n in zip(stdevs, counts, strict=True)):
            return None
        mean = math.fsum(n * m for n, m in zip(counts, means, strict=True)) / sum(counts)
        squares = [
            (n - 1) * (s or 0.0) ** 2 + n * (m - mean) ** 2
            for n, m, s in zip(counts, means, stdevs, strict=True)
        ]
        return math.sqrt(math.fsum(squares) / (sum(counts) - 1))

    @property
    def iteration_range_s(self) -> tuple[float, float] | None:
        """The least and the most seconds per image or video of any iteration of any start."""
        ends = [one.time_range_s for one in self.starts]
        low = [least for least, _ in ends if least is not None]
        high = [most for _, most in ends if most is not None]
        return (min(low), max(high)) if len(low) == len(high) == len(ends) else None

    @property
    def peak_memory_gb(self) -> float | None:
        """The largest peak of any start; None where a start has none."""
        known = [one.peak_memory_gb for one in self.starts if one.peak_memory_gb is not None]
        return max(known) if len(known) == len(self.starts) else None

    @property
    def reasons(self) -> dict[str, str]:
        """Reasons for unknown figures, by figure."""
        columns = {}
        if self.joules is None:
            columns["joules"] = "energy_reason"
        if self.peak_memory_gb is None:
            columns["memory"] = "memory_reason"
        if self.seconds.half_width is None:
            columns["interval"] = "time_interval_reason"
        return {
            figure: next(filter(None, (getattr(one, column) for one in self.starts)), "not known")
            for figure, column in columns.items()
        }

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Code and message of every warning of any start, each once."""
        return list(dict.fromkeys(warning for start in self.starts for warning in start.warnings))

    def doubts(self, figure: FigureName) -> list[tuple[str, str]]:
        """Those warnings that make a figure doubtful."""
        return [(code, message) for code, message in self.warnings if figure in DOUBTFUL.get(code, _ALL)]


class Figure:
    """A figure over the starts of a set-up: the mean of their means, with the wider of two intervals.

    Within starts it comes from the scatter of the iterations, between starts from that of the starts' means
    (`measure.starts.interval_of`).
    """

    def __init__(self, starts: Sequence[StartSummary]) -> None:
        self._starts = starts
        self._spread = scatter_of(starts) if len(starts) > 1 else None

    @cached_property
    def _interval(self) -> Interval:
        return interval_of(self._starts, self._spread)

    @property
    def mean(self) -> float:
        """Mean of the starts' means."""
        return mean_of(self._starts)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval; None where one iteration of one start shows none."""
        half = self._interval.half_width
        return half if math.isfinite(half) else None

    @property
    def interval(self) -> Interval:
        """The interval, whose lower end is 0 or more."""
        return self._interval

    @property
    def spread(self) -> float | None:
        """Standard deviation between starts as a share of the mean; None for one start."""
        return None if self._spread is None else self._spread.relative

    @property
    def error(self) -> tuple[float, int] | None:
        """Standard error of the mean with its degrees of freedom: those of the wider interval, if any."""
        from mlenergy.diffusion.measure.statistics import t_quantile

        errors = errors_of(self._starts, self._spread)
        return max(errors, key=lambda pair: pair[0] * t_quantile(pair[1]), default=None)


def pool(records: Sequence[ResultRecord]) -> list[SetUp]:
    """Set-ups in the order of their first result; one on other GPUs or versions is another one."""
    found: dict[tuple[str | None, ...], list[ResultRecord]] = {}
    for record in records:
        # Results of before there were versions say too little to be repeats of each other.
        apart = record.path if record.schema_version == 0 else None
        found.setdefault((record.setup_digest, record.platform_digest, apart), []).append(record)
    return [SetUp(tuple(starts)) for starts in found.values()]


def _summary(record: ResultRecord, mean: float | None, deviation: float | None) -> StartSummary:
    return StartSummary(record.iterations_count or 1, mean or 0.0, deviation)
