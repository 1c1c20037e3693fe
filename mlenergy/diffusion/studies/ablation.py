"""The study `ablation`: parallelism × attention × precision × cache × compilation, as factors."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mlenergy.diffusion.config.args import ITERATIONS, PROCESSES
from mlenergy.diffusion.config.optimizations import AttentionName
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.studies.content import (
    FIGURE_COLUMNS,
    Column,
    Gap,
    Measured,
    Part,
    Report,
    Table,
    Value,
    figures_of,
)
from mlenergy.diffusion.studies.factors import (
    FACTOR_COLUMNS,
    NAMES,
    Effect,
    FactorName,
    effect_of,
    factors_of,
)
from mlenergy.diffusion.studies.likeness import LIKENESS_COLUMNS, likeness_of, measure_likeness
from mlenergy.diffusion.studies.outcome import Cell, Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps

Parallel = Literal["none", "ulysses", "ring", "cfg", "data", "pipefusion", "tensor"]
Precision = Literal["own", "float32", "float16", "bfloat16", "int8", "int8-dynamic", "fp8", "fp8-dynamic"]
CacheName = Literal["none", "fbcache", "teacache", "magcache", "taylorseer", "pab", "fastercache"]
Compilation = Literal["none", "regional", "whole"]
Options = Mapping[str, Any]

_SWEEP = "runs"
_NAMES = ("parallel", "attention", "precision", "cache", "compile")


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class AblationOptions(StudyOptions):
    """Parallelism × attention × precision × cache × compile: factors over the baseline, for one model.

    The first level of each factor is the baseline's.
    """

    model: str = "black-forest-labs/FLUX.1-dev"
    """Model to measure."""
    design: Literal["product", "single"] = "product"
    """product: every combination of the levels; single: the baseline with one level changed at a time."""
    degree: Annotated[int, Range(least=2, most=65_536)] = 2
    """Processes of each level of --parallel but none; cfg has two, whatever this is."""
    parallel: tuple[Parallel, ...] = ("none", "ulysses", "ring")
    """Ways to share the work."""
    attention: tuple[AttentionName, ...] = ("auto", "cudnn")
    """Attention of the denoiser."""
    precision: tuple[Precision, ...] = ("own", "int8", "fp8-dynamic")
    """Type of the run (own: the model's), or of the denoiser's weights: int8 and fp8; dynamic: of its
    products too."""
    cache: tuple[CacheName, ...] = ("none", "fbcache", "taylorseer")
    """Caches over steps."""
    compile: tuple[Compilation, ...] = ("none", "regional")
    """Compilation of the denoiser."""
    iters: Annotated[int, ITERATIONS] = 4
    """Measured iterations of each run."""
    repeats: Annotated[int, PROCESSES] = 1
    """Starts of each run. The intervals hold the difference between starts where there are several."""


@dataclass(frozen=True)
class Levels:
    """The levels of every factor, by name, each with the options that it sets."""

    by_factor: Mapping[str, Mapping[str, Options]]

    @classmethod
    def of(cls, options: AblationOptions) -> Levels:
        """The levels that were asked for.

        Raises:
            UserError: a factor has none, or names one twice.
        """
        asked: dict[str, Sequence[str]] = {name: getattr(options, name) for name in _NAMES}
        for name, levels in asked.items():
            twice = next((level for level, count in Counter(levels).items() if count > 1), None)
            if twice is not None:
                raise UserError(f"--{name} names {twice} twice; name each level once")
            if not levels:
                raise UserError(f"--{name} names no level; name one or more, the baseline's first")
        if options.quick:
            asked = {name: levels[:2] for name, levels in asked.items()}
        return cls(
            {
                name: {level: _options_of(name, level, options.degree) for level in levels}
                for name, levels in asked.items()
            }
        )

    @property
    def baseline(self) -> tuple[str, ...]:
        """The first level of every factor."""
        return tuple(next(iter(levels)) for levels in self.by_factor.values())

    def combinations(self, design: Literal["product", "single"]) -> list[tuple[str, ...]]:
        """Levels of each run, the baseline first."""
        every = itertools.product(*self.by_factor.values())
        if design == "product":
            return list(every)
        base = self.baseline
        return [one for one in every if sum(a != b for a, b in zip(one, base, strict=True)) <= 1]

    def options(self, combination: Sequence[str]) -> dict[str, Any]:
        """The options of a combination, with null for what another combination sets."""
        names = {name for levels in self.by_factor.values() for of in levels.values() for name in of}
        found = dict.fromkeys(sorted(names))
        for (_, levels), level in zip(self.by_factor.items(), combination, strict=True):
            found |= levels[level]
        return found


def sweeps(options: AblationOptions) -> Sweeps:
    """Every combination of the levels, or one level changed at a time."""
    levels = Levels.of(options)
    runs = [levels.options(one) for one in levels.combinations(_design(options))]
    common = {"model_id": options.model, "benchmark_iters": options.iters}
    yield Sweep(_SWEEP, {"common": common, "list": runs, "repeats": options.repeats})


def after(options: AblationOptions, outcome: Outcome) -> None:
    """Compare the images of every cell with the baseline's."""
    found = _found(options, outcome)
    baseline = found.get(Levels.of(options).baseline)
    measure_likeness([cell for cell in found.values() if cell is not baseline], baseline, outcome.folder)


def report(options: AblationOptions, outcome: Outcome) -> Report:
    """Factors of every combination, the effect of each level, and what was refused."""
    levels, found = Levels.of(options), _found(options, outcome)
    baseline = found.get(levels.baseline)
    parts: list[Part] = [_combinations(found, baseline, outcome), _effects(levels, found)]
    refused = _refused(found)
    if refused.rows:
        parts.append(refused)
    return Report(f"Ablation: {options.model}", _summary(levels, found, baseline), parts)


def _design(options: AblationOptions) -> Literal["product", "single"]:
    return "single" if options.quick else options.design


def _options_of(factor: str, level: str, degree: int) -> Options:
    """The options that a level sets, beside the defaults."""
    if level == "none" or (factor, level) in (("attention", "auto"), ("precision", "own")):
        return {}
    if factor == "parallel":
        return {"use_cfg_parallel": True} if level == "cfg" else {_DEGREES[level]: degree}
    if factor == "precision":
        return {"quantization": _QUANTIZATION[level]} if level in _QUANTIZATION else {"dtype": level}
    if factor == "compile":
        return {"use_torch_compile": True, "compile_mode": level}
    return {"attention_backend" if factor == "attention" else "cache_method": level}


_DEGREES = {
    "ulysses": "ulysses_degree",
    "ring": "ring_degree",
    "data": "data_parallel_degree",
    "pipefusion": "pipefusion_parallel_degree",
    "tensor": "tensor_parallel_degree",
}
_QUANTIZATION = {
    "int8": "int8-weight-only",
    "int8-dynamic": "int8-dynamic",
    "fp8": "fp8-weight-only",
    "fp8-dynamic": "fp8-dynamic",
}


def _found(options: AblationOptions, outcome: Outcome) -> dict[tuple[str, ...], Cell]:
    """Combination -> its cell."""
    levels, cells = Levels.of(options), outcome.cells(_SWEEP)
    found = {}
    for combination in levels.combinations(_design(options)):
        wanted = levels.options(combination)
        cell = next((c for c in cells if {name: c.option(name) for name in wanted} == wanted), None)
        if cell is not None:
            found[combination] = cell
    return found


def _combinations(found: Mapping[tuple[str, ...], Cell], baseline: Cell | None, outcome: Outcome) -> Table:
    """Every combination that has a result."""
    rows: list[dict[str, Value]] = [
        {
            **dict(zip(_NAMES, combination, strict=True)),
            "processes": cell.set_up.first.processes or Gap("the result does not say it"),
            "engine": cell.set_up.first.engine or Gap("the result does not say it"),
            **figures_of(cell),
            **factors_of(cell, baseline),
            **likeness_of(cell, baseline, outcome.folder),
        }
        for combination, cell in found.items()
        if cell.set_up is not None
    ]
    columns = (
        *(Column(name, name) for name in _NAMES),
        Column("processes", "processes"),
        Column("engine", "engine"),
        *FIGURE_COLUMNS,
        *FACTOR_COLUMNS,
        *LIKENESS_COLUMNS,
    )
    note = (
        "Factors are the baseline's figure ÷ that of the row, with 95 % intervals: above 1 is better. Joules "
        "are those of all processes' GPUs, gigabytes those of the fullest GPU. The first row is the baseline."
    )
    return Table("combinations", "Combinations", columns, rows, note)


def _effects(levels: Levels, found: Mapping[tuple[str, ...], Cell]) -> Table:
    """Change by each level but the first of its factor."""
    rows = []
    for place, (factor, of) in enumerate(levels.by_factor.items()):
        first, *others = of
        for level in others:
            row: dict[str, Value] = {"factor": factor, "level": level, "instead_of": first}
            effects = {name: _effect(name, place, first, level, found) for name in NAMES}
            for name, effect in effects.items():
                row |= _effect_values(name, effect)
            row["pairs"] = max((one.pairs for one in effects.values() if one is not None), default=0)
            rows.append(row)
    columns = [Column("factor", "factor"), Column("level", "level"), Column("instead_of", "instead of")]
    columns.append(Column("pairs", "pairs"))
    words = {"speed": "× faster", "energy": "× less energy", "memory": "× less memory"}
    for name in NAMES:
        columns += [
            Column(f"{name}_factor", words[name]),
            Column(f"{name}_least", "least"),
            Column(f"{name}_most", "most"),
        ]
    note = (
        "Over all pairs of runs that differ in this level alone: the geometric mean of their factors, the "
        "least and the most. Where these lie apart, the level's worth depends on what else is on."
    )
    return Table("effects", "Effect of each level", tuple(columns), rows, note)


def _effect(
    name: FactorName, place: int, first: str, level: str, found: Mapping[tuple[str, ...], Cell]
) -> Effect | None:
    partners = {id(cell): (*key[:place], level, *key[place + 1 :]) for key, cell in found.items()}
    without = [cell for key, cell in found.items() if key[place] == first]
    return effect_of(name, without, lambda cell: found.get(partners[id(cell)]))


def _effect_values(name: FactorName, effect: Effect | None) -> dict[str, Value]:
    keys = (f"{name}_factor", f"{name}_least", f"{name}_most")
    if effect is None:
        return dict.fromkeys(keys, Gap("no pair of runs with and without it has this figure"))
    return dict(zip(keys, (effect.geometric_mean, effect.least, effect.most), strict=True))


def _refused(found: Mapping[tuple[str, ...], Cell]) -> Table:
    """Combinations that the plan refuses, by reason."""
    by_reason: dict[str, list[tuple[str, ...]]] = {}
    for combination, cell in found.items():
        if all(run.state == "pruned" for run in cell.runs):
            by_reason.setdefault(cell.gap or "not known", []).append(combination)
    rows: list[dict[str, Value]] = []
    for reason, combinations in by_reason.items():
        shared = [
            name
            for name, values in zip(_NAMES, zip(*combinations, strict=True), strict=True)
            if len(set(values)) == 1 and values[0] not in ("none", "auto", "own")
        ]
        common = ", ".join(f"{name} {combinations[0][_NAMES.index(name)]}" for name in shared)
        rows.append({"reason": reason, "combinations": len(combinations), "in_common": common or "–"})
    columns = (
        Column("in_common", "what they have in common"),
        Column("combinations", "combinations"),
        Column("reason", "reason"),
    )
    return Table("refused", "Refused combinations", columns, rows)


def _summary(levels: Levels, found: Mapping[tuple[str, ...], Cell], baseline: Cell | None) -> list[str]:
    base = ", ".join(f"{name} {level}" for name, level in zip(_NAMES, levels.baseline, strict=True))
    lines = [f"Baseline: {base}."]
    if baseline is None or baseline.set_up is None:
        lines.append(
            f"The baseline has no result ({baseline.gap if baseline else 'no run'}): no factor is known."
        )
        return lines
    factors = [(factors_of(cell, baseline)["speed_factor"], key) for key, cell in found.items()]
    known = [(one, key) for one, key in factors if isinstance(one, Measured) and not one.doubts]
    best, key = max(known, key=lambda pair: pair[0].value, default=(Measured(1.0), levels.baseline))
    if best.value > 1:
        ends = (
            "" if best.low is None or best.high is None else f" ({number(best.low)} to {number(best.high)})"
        )
        what = ", ".join(f"{n} {v}" for n, v, b in zip(_NAMES, key, levels.baseline, strict=True) if v != b)
        lines.append(f"Fastest: {number(best.value)} times{ends}, with {what}.")
    if baseline.set_up.first.weights == "random":
        lines.append("The weights are random: likeness says how exact a level is, nothing of quality.")
    return lines


ABLATION = Study("ablation", AblationOptions, sweeps, report, after=after)
