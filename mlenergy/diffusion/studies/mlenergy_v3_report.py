"""The report of the study `mlenergy-v3`: ours beside the published figures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.published import SOURCE, XDIT_VERSION
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import SetUp
from mlenergy.diffusion.studies.content import (
    Chart,
    Column,
    Gap,
    Measured,
    Point,
    Report,
    Series,
    Table,
    Value,
)
from mlenergy.diffusion.studies.content import Part as ReportPart
from mlenergy.diffusion.studies.mlenergy_v3_options import MlEnergyV3Options, Part, published_models
from mlenergy.diffusion.studies.mlenergy_v3_pairs import Pair, pairs_of
from mlenergy.diffusion.studies.outcome import Outcome

_NOT_PUBLISHED = Gap("not published")
_OF_PART: dict[Part, str] = {"image": "text to image", "video": "text to video"}
_SIZE: dict[Part, str] = {"image": "size", "video": "frames, size"}


def report(options: MlEnergyV3Options, outcome: Outcome) -> Report:
    """Ratios by model, the best configurations, every cell, what differs, and charts, for each part."""
    summary: list[str] = []
    parts: list[ReportPart] = []
    pairs: list[Pair] = []
    for part in dict.fromkeys(options.parts):
        own = pairs_of(part, options, outcome.cells(part))
        pairs += own
        summary += _summary(part, own)
        if own:
            parts += [_models(part, own), *_best(part, own), *_charts(part, own), _cells(part, own)]
    parts.append(_differences(pairs))
    return Report("ML.ENERGY leaderboard v3, measured here", summary, parts, {"published_source": SOURCE})


def _summary(part: Part, pairs: Sequence[Pair]) -> Iterator[str]:
    absent = [model for model in published_models(part) if model not in BY_ID]
    if absent:
        yield f"{_title(part)}: published, but not run by this version: {', '.join(absent)}."
    if not pairs:
        return
    measured = sum(pair.cell.set_up is not None for pair in pairs)
    beside = ", ".join(sorted({pair.beside for pair in pairs}))
    have = f"{measured} of {len(pairs)} cells have a result"
    yield f"{_title(part)}: {have}; published figures are those of {beside}."
    for words, ratio_of in (("Seconds a batch", _seconds), (f"Joules a{_an(part)}", _joules)):
        found = Ratios.of(ratio_of(pair) for pair in pairs)
        if found is not None:
            yield (
                f"{words}: {number(found.mean)} times the published ones in the geometric mean of "
                f"{found.count} cells ({number(found.least)} to {number(found.most)})."
            )


def _seconds(pair: Pair) -> Measured | Gap:
    return pair.seconds_ratio


def _joules(pair: Pair) -> Measured | Gap:
    return pair.joules_ratio


@dataclass(frozen=True)
class Ratios:
    """Ratios of several cells: their geometric mean and their ends."""

    count: int
    mean: float
    least: float
    most: float

    @classmethod
    def of(cls, ratios: Iterable[Measured | Gap]) -> Ratios | None:
        """Of those that are known; None where none is."""
        known = [one.value for one in ratios if isinstance(one, Measured)]
        if not known:
            return None
        mean = math.exp(math.fsum(map(math.log, known)) / len(known))
        return cls(len(known), mean, min(known), max(known))


def _models(part: Part, pairs: Sequence[Pair]) -> Table:
    """Ratios by model and number of GPUs; cells without a result count with the GPU of most others."""
    known = Counter(pair.gpu for pair in pairs if pair.gpu is not None)
    most = next((gpu for gpu, _ in known.most_common(1)), "–")
    groups: dict[tuple[str, str, str, int], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.model, pair.gpu or most, pair.beside, pair.gpus), []).append(pair)
    rows = []
    for (model, gpu, beside, gpus), own in groups.items():
        row: dict[str, Value] = {
            "model": model,
            "size": _sizes(own),
            "gpu": gpu,
            "beside": beside,
            "gpus": gpus,
            "cells": len(own),
        }
        row["measured"] = sum(pair.cell.set_up is not None for pair in own)
        compared = 0
        for name, ratio_of in (("seconds", _seconds), ("joules", _joules)):
            ratios = [ratio_of(pair) for pair in own]
            found = Ratios.of(ratios)
            keys = (f"{name}_ratio", f"{name}_least", f"{name}_most")
            if found is None:
                row |= dict.fromkeys(keys, next(one for one in ratios if isinstance(one, Gap)))
            else:
                row |= dict(zip(keys, (found.mean, found.least, found.most), strict=True))
                compared = max(compared, found.count)
        row["compared"] = compared
        rows.append(row)
    columns = (
        Column("model", "model"),
        Column("size", _SIZE[part]),
        Column("gpu", "GPU"),
        Column("beside", "published on"),
        Column("gpus", "GPUs"),
        Column("cells", "cells"),
        Column("measured", "measured"),
        Column("compared", "compared"),
        Column("seconds_ratio", "s ÷ published"),
        Column("seconds_least", "least"),
        Column("seconds_most", "most"),
        Column("joules_ratio", "J ÷ published"),
        Column("joules_least", "least"),
        Column("joules_most", "most"),
    )
    note = (
        "Geometric means over the cells that both have, with their least and most. Below 1: ours takes less."
    )
    return Table(f"{part}_models", f"Models, {_OF_PART[part]}", columns, rows, note)


def _sizes(pairs: Sequence[Pair]) -> Value:
    """All sizes of some cells; one where all are alike."""
    known = dict.fromkeys(pair.size for pair in pairs)
    return ", ".join(one for one in known if isinstance(one, str)) or next(iter(known))


def _best(part: Part, pairs: Sequence[Pair]) -> Iterator[Table]:
    """The set-up of the least joules and that of the least seconds of each model, ours and the published.

    None where no model has a cell with both.
    """
    noun = "image" if part == "image" else "video"
    aims: tuple[tuple[str, Callable[[Pair], Measured | Gap], Callable[[Pair], float | Gap]], ...] = (
        (f"least J/{noun}", lambda pair: pair.joules, lambda pair: pair.published_joules),
        ("least s/batch", lambda pair: pair.seconds, lambda pair: pair.published_seconds),
    )
    rows: list[Mapping[str, Value]] = []
    for model in dict.fromkeys(pair.model for pair in pairs):
        own = [pair for pair in pairs if pair.model == model]
        for aim, ours_of, theirs_of in aims:
            both = [
                (pair, here, there)
                for pair in own
                if isinstance(here := ours_of(pair), Measured)
                and isinstance(there := theirs_of(pair), float)
                and not isinstance(pair.seconds_ratio, Gap)
            ]
            if not both:
                continue
            our_pair, ours, _ = min(both, key=lambda one: one[1].value)
            their_pair, _, theirs = min(both, key=lambda one: one[2])
            rows.append(
                {
                    "model": model,
                    "aim": aim,
                    "ours_set_up": _set_up(our_pair),
                    "ours": ours,
                    "published_set_up": _set_up(their_pair),
                    "published": theirs,
                    "ratio": ours.value / theirs,
                    "cells": len(both),
                }
            )
    columns = (
        Column("model", "model"),
        Column("aim", "aim"),
        Column("ours_set_up", "our set-up"),
        Column("ours", "ours"),
        Column("published_set_up", "published set-up"),
        Column("published", "published"),
        Column("ratio", "ours ÷ published"),
        Column("cells", "of cells"),
    )
    note = "The best of the cells that both have: a machine of few GPUs is not compared with one of many."
    if rows:
        yield Table(f"{part}_best", f"The best set-up of each model, {_OF_PART[part]}", columns, rows, note)


def _cells(part: Part, pairs: Sequence[Pair]) -> Table:
    """Every cell, ours beside the published one."""
    noun = "image" if part == "image" else "video"
    rows: list[Mapping[str, Value]] = [
        {
            "model": pair.model,
            "size": pair.size,
            "gpu": pair.gpu or "–",
            "beside": pair.beside,
            "gpus": pair.gpus,
            "ulysses": pair.ulysses,
            "ring": pair.ring,
            "batch": pair.batch,
            "batch_s": pair.seconds,
            "published_batch_s": pair.published_seconds,
            "seconds_ratio": pair.seconds_ratio,
            f"energy_per_{noun}_j": pair.joules,
            f"published_energy_per_{noun}_j": pair.published_joules,
            "joules_ratio": pair.joules_ratio,
        }
        for pair in pairs
    ]
    columns = (
        Column("model", "model"),
        Column("size", _SIZE[part]),
        Column("gpu", "GPU"),
        Column("beside", "published on"),
        Column("gpus", "GPUs"),
        Column("ulysses", "Ulysses"),
        Column("ring", "ring"),
        Column("batch", "batch"),
        Column("batch_s", "s/batch"),
        Column("published_batch_s", "published"),
        Column("seconds_ratio", "ratio"),
        Column(f"energy_per_{noun}_j", f"J/{noun}"),
        Column(f"published_energy_per_{noun}_j", "published"),
        Column("joules_ratio", "ratio"),
    )
    note = (
        "± is the 95 % interval of ours; of the published figures none is known. A ratio is ours ÷ published."
    )
    return Table(f"{part}_cells", f"Cell by cell, {_OF_PART[part]}", columns, rows, note)


def _charts(part: Part, pairs: Sequence[Pair]) -> Iterator[Chart]:
    """Ours over published; below the line ours takes less."""
    noun = "image" if part == "image" else "video"
    quantities: tuple[
        tuple[
            str,
            str,
            Callable[[Pair], Measured | Gap],
            Callable[[Pair], float | Gap],
            Callable[[Pair], object],
        ],
        ...,
    ] = (
        ("seconds", "seconds of a batch", lambda p: p.seconds, lambda p: p.published_seconds, _seconds),
        ("joules", f"joules of one {noun}", lambda p: p.joules, lambda p: p.published_joules, _joules),
    )
    for name, label, ours_of, theirs_of, ratio_of in quantities:
        series: dict[str, list[Point]] = {}
        for pair in pairs:
            ours, theirs = ours_of(pair), theirs_of(pair)
            if isinstance(ours, Gap) or isinstance(theirs, Gap) or isinstance(ratio_of(pair), Gap):
                continue
            where = f"{pair.model}, {_set_up(pair)}: {number(ours.value)} here, {number(theirs)} published"
            series.setdefault(pair.model, []).append(Point(theirs, ours.value, ours.low, ours.high, where))
        if not series:
            continue
        ends = [value for points in series.values() for point in points for value in (point.x, point.y)]
        low, high = min(ends), max(ends)
        equal = Series("equal", (), ((low, low), (high, high)))
        yield Chart(
            f"{part}_{name}",
            f"{label[0].upper()}{label[1:]}, here and published",
            f"published {label}",
            f"{label}, here",
            [*(Series(model, points) for model, points in series.items()), equal],
            log=True,
            note="Below the dashed line ours takes less than the published one.",
        )


def _differences(pairs: Sequence[Pair]) -> Table:
    """Hardware, versions and procedure, here and as published."""
    set_ups = [pair.cell.set_up for pair in pairs if pair.cell.set_up is not None]
    records = [start for one in set_ups for start in one.starts]

    def joined(values: Iterable[object]) -> Value:
        found = dict.fromkeys(str(value) for value in values if value is not None)
        return ", ".join(found) or Gap("no result has it" if records else "nothing was measured")

    def ours(value_of: Callable[[ResultRecord], object]) -> Value:
        return joined(map(value_of, records))

    beside = sorted({pair.beside for pair in pairs})

    facts: list[tuple[str, Value, Value]] = [
        ("GPU", joined(pair.gpu for pair in pairs), ", ".join(beside)),
        ("power limit, W", joined(map(_power_limit, set_ups)), _NOT_PUBLISHED),
        ("processor", joined(one.hardware.get("cpu") for one in set_ups), _NOT_PUBLISHED),
        ("GPU driver", ours(lambda r: r.driver_version), _NOT_PUBLISHED),
        ("CUDA", ours(lambda r: r.cuda_version), _NOT_PUBLISHED),
        ("xDiT (xfuser)", ours(lambda r: r.xfuser_version), XDIT_VERSION),
        ("torch", ours(lambda r: r.torch_version), _NOT_PUBLISHED),
        ("diffusers", ours(lambda r: r.diffusers_version), _NOT_PUBLISHED),
        ("dtype", ours(lambda r: r.dtype), "bfloat16"),
        ("attention", ours(lambda r: r.attention), _NOT_PUBLISHED),
        ("compilation", ours(lambda r: r.compile_mode or "eager"), "eager"),
        ("weights", ours(lambda r: r.weights), "pretrained"),
        ("prompts", ours(lambda r: r.dataset), _NOT_PUBLISHED),
        ("iterations", ours(lambda r: f"{r.warmup_iters} + {r.benchmark_iters}"), _NOT_PUBLISHED),
        ("end of the clock", "pixels on the GPU", "images on the host"),
    ]
    rows: list[Mapping[str, Value]] = [
        {"what": what, "ours": here, "published": there, "same": _same(here, there)}
        for what, here, there in facts
    ]
    columns = (
        Column("what", "what"),
        Column("ours", "here"),
        Column("published", "published"),
        Column("same", "the same"),
    )
    note = (
        "Iterations are those of warm-up and those measured. Weights and prompts change neither seconds nor "
        "joules of these models. The published seconds hold the conversion of images on the host, which "
        "counts for small models on many GPUs."
    )
    return Table("differences", "Hardware, versions and procedure", columns, rows, note)


def _power_limit(set_up: SetUp) -> str | None:
    """Of all GPUs of the nodes, as a text without needless digits; None where the driver did not tell."""
    limits = set_up.hardware.get("gpu_power_limit_w")
    return None if limits is None else ", ".join(f"{float(one):g}" for one in str(limits).split(","))


def _same(here: Value, there: Value) -> Value:
    if isinstance(here, Gap) or isinstance(there, Gap):
        return Gap("one of both is not known")
    return here == there


def _set_up(pair: Pair) -> str:
    gpus = "1 GPU" if pair.gpus == 1 else f"{pair.gpus} GPUs"
    return f"{gpus}, Ulysses {pair.ulysses} × ring {pair.ring}, batch {pair.batch}"


def _title(part: Part) -> str:
    words = _OF_PART[part]
    return words[0].upper() + words[1:]


def _an(part: Part) -> str:
    return "n image" if part == "image" else " video"
