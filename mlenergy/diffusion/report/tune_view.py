"""The report of `mlenergy tune`: the Pareto front, the command of each point, and everything else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mlenergy.diffusion.report.lines import number, title

Entry = Mapping[str, Any]

_SHOWN_NUMBERS = 3
_SHOWN_FORECASTS = 10
_SHOWN = 5  # of a long list; tune.json has all
_ENERGY = {"gpu": "GPU joules", "cpu_packages": "joules of the CPU packages", None: None}
_ENDINGS = {
    "settled": "{every}, and the Pareto front is certain to within --tolerance",
    "rounds": "{every}, and contenders had their {rounds} starts (--rounds)",
    "budget": "no further start fits into the budget (--budget_s)",
}


def render(record: Mapping[str, Any]) -> RenderableType:
    """The report of a tune.json."""
    by_state: dict[str, list[Entry]] = {}
    for entry in record["candidates"]:
        by_state.setdefault(entry["state"], []).append(entry)
    by_number = {entry["number"]: entry for entry in record["candidates"]}
    front = [by_number[one] for one in record["front"]]
    return Group(
        title(_heading(record)),
        *_unknown(record, front),
        _table(front),
        *_doubts(front),
        *_commands(front),
        *_listed("undecided", by_state.get("undecided", []), "reason"),
        *_listed("not comparable", by_state.get("not comparable", []), "energy_reason"),
        *_listed("failed", [e for e in record["candidates"] if e["failure"] is not None], "failure"),
        *_listed("not measured", by_state.get("not measured", []), None),
        *_pruned(record),
        *_warnings(front),
        *_spread(record),
        *_forecast_lines(record),
        *_ending(record),
    )


def render_space(record: Mapping[str, Any]) -> RenderableType:
    """The report of a dry run: the candidates in their order, and the combinations that cannot work."""
    counts = record["counts"]
    return Group(
        title(f"{record['model_id']}: {counts['candidates']} candidates, {counts['pruned']} cannot work"),
        *[_line(f"#{entry['number']}", _expected(entry)) for entry in record["candidates"]],
        *_pruned(record),
        *_no_forecast(record),
    )


def _heading(record: Mapping[str, Any]) -> str:
    counts = record["counts"]
    measured = sum(counts[state] for state in ("front", "undecided", "dominated", "not comparable"))
    energy = _ENERGY[record["energy_of"]]
    what = "seconds" if energy is None else f"seconds and {energy}"
    return (
        f"{record['model_id']}: lowest {what} per {_unit(record)}, "
        f"{counts['front']} of {measured} measured candidates ({counts['candidates']} in all)"
    )


def _unknown(record: Mapping[str, Any], front: Sequence[Entry]) -> list[Text]:
    """Reasons for empty columns."""
    lines = []
    if record["energy_of"] is None and record["energy_reason"] is not None:
        lines.append(_line("joules", f"not known: {record['energy_reason']}; so seconds alone decide"))
    peak = next((entry for entry in front if entry["peak_memory_bytes"] is None), None)
    if peak is not None:
        lines.append(_line("peak memory", f"not known: {peak['peak_memory_reason']}"))
    return lines


def _table(front: Sequence[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    each = _unit(front[0]) if front else "image"
    for name in ("#", f"s/{each}", f"J/{each}", f"{each}s/s", "devices", "peak GB", "starts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sure", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for entry in front:
        peak = entry["peak_memory_bytes"]
        table.add_row(
            str(entry["number"]),
            _with_interval(entry[f"seconds_per_{_unit(entry)}"]),
            _with_interval(entry[f"joules_per_{_unit(entry)}"]),
            number(entry[f"{_unit(entry)}s_per_s"]),
            str(entry["devices"]),
            "-" if peak is None else number(peak / 1e9),
            str(len(entry["starts"])),
            _sure(entry),
            Text(_settings(entry)),
        )
    return table


def _with_interval(interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return "-"
    half = interval["ci95_half_width"]
    return f"{number(interval['mean'])} ± {'?' if half is None else _two_digits(half)}"


def _two_digits(value: float) -> str:
    """Two significant digits, enough for a value that is itself uncertain."""
    return number(float(f"{value:.2g}"))


def _settings(entry: Entry) -> str:
    lossy = "; ".join(entry["settings"]["lossy"])
    return f"{entry['label']}; not exact: {lossy}" if lossy else str(entry["label"])


def _doubts(front: Sequence[Entry]) -> list[Text]:
    """The reasons why points are not certain to be on the front, each with its points."""
    points: dict[str, list[str]] = {}
    for entry in front:
        for reason in entry["not_sure_because"]:
            points.setdefault(reason, []).append(f"#{entry['number']}")
    return [_line("not sure", f"{', '.join(numbers)}: {reason}") for reason, numbers in points.items()]


def _commands(front: Sequence[Entry]) -> list[Text]:
    return [_line(f"#{entry['number']}", entry["command"]) for entry in front]


def _listed(name: str, entries: Sequence[Entry], key: str | None) -> list[Text]:
    """Lines for the first of them, and the number of the rest."""
    lines = [
        _line(name, f"#{entry['number']} {entry['label']}" + ("" if key is None else f": {entry[key]}"))
        for entry in entries[:_SHOWN]
    ]
    more = len(entries) - _SHOWN
    return [*lines, *([_line(name, f"and {more} more, see tune.json")] if more > 0 else [])]


def _pruned(record: Mapping[str, Any]) -> list[Text]:
    groups = record["pruned"]
    lines = [
        _line("cannot work", f"{_first_and_more(group['settings'])}: {group['reason']}") for group in groups
    ]
    more = len(lines) - _SHOWN
    if more > 0:
        lines = [*lines[:_SHOWN], _line("cannot work", f"and {more} more reasons, see tune.json")]
    return lines


def _warnings(front: Sequence[Entry]) -> list[Text]:
    return [
        _line("warning", f"#{entry['number']}: {warning}", "yellow")
        for entry in front
        for warning in entry["warnings"]
    ]


def _first_and_more(texts: Sequence[str]) -> str:
    others = len(texts) - 1
    return texts[0] if others == 0 else f"{texts[0]} and {others} more"


def _ending(record: Mapping[str, Any]) -> list[Text]:
    limits = record["limits"]
    failed = record["counts"]["failed"]
    every = (
        "every candidate is measured" if not failed else f"every candidate is measured but {failed} failed"
    )
    known = _ENDINGS.get(record["ended"], record["ended"]).format(rounds=limits["rounds"], every=every)
    spent = f"{number(record['spent_s'])} of {number(limits['budget_s'])} s"
    return [_line("ended", f"after {spent}: {known}"), _line("full record", f"{record['folder']}/tune.json")]


def _sure(entry: Entry) -> str:
    others = entry["not_told_apart_from"]
    if not others:
        return "yes" if entry["sure"] else "no"
    named = len(others) <= _SHOWN_NUMBERS
    return f"not vs. {', '.join(f'#{one}' for one in others) if named else f'{len(others)} others'}"


def _spread(record: Mapping[str, Any]) -> list[Text]:
    """The spread between starts; where it is large, the machine was not quiet and no interval is narrow."""
    known = {name: spread for name, spread in record["start_to_start"].items() if spread is not None}
    shares = [f"{name} {_two_digits(100 * one['relative'])} %" for name, one in known.items()]
    alone = [
        f"#{entry['number']}"
        for entry in record["candidates"]
        if any(spread is not None for spread in entry["own_start_to_start"].values())
    ]
    text = f"{', '.join(shares)} of the mean (standard deviation, over all candidates"
    text += f" but {', '.join(alone)}, which scatter more)" if alone else ")"
    return [_line("start to start", text)] if shares else []


def _expected(entry: Entry) -> str:
    """The settings with their forecast, where there is one."""
    found = entry["forecast"]
    if found is None:
        return str(entry["label"])
    joules = found[f"joules_per_{_unit(entry)}"]
    energy = "" if joules is None else f", {number(joules['value'])} J"
    note = f" without {', '.join(found['differs'])}" if found["differs"] else ""
    seconds, each = found[f"seconds_per_{_unit(entry)}"], "a video" if _unit(entry) == "video" else "an image"
    return f"{entry['label']}; forecast {number(seconds['value'])} s{energy} {each}{note}"


def _no_forecast(record: Mapping[str, Any]) -> list[Text]:
    reason = record["forecast_reason"]
    return [] if reason is None else [_line("forecast", f"none, so guesses make the order: {reason}")]


def _forecast_lines(record: Mapping[str, Any]) -> list[Text]:
    """How far off the forecasts were, over all candidates and for each; the reason where there are none."""
    found = record["forecast"]
    if found is None:
        return _no_forecast(record)
    lines = [
        _line("forecast", _errors(quantity, found[quantity]))
        for quantity in ("seconds", "joules")
        if found[quantity] is not None
    ]
    lines += [_line("", reason) for reason in found["extrapolated"]] if lines else []
    measured = [
        entry
        for entry in record["candidates"]
        if entry["forecast"] is not None and entry["forecast"]["seconds_ratio"] is not None
    ]
    lines += [_line("", _one_error(entry)) for entry in measured[:_SHOWN_FORECASTS]]
    more = len(measured) - _SHOWN_FORECASTS
    return [*lines, *([_line("", f"and {more} more, see tune.json")] if more > 0 else [])]


def _errors(quantity: str, errors: Mapping[str, Any]) -> str:
    count, correlation = errors["count"], errors["rank_correlation"]
    ends = f"{number(errors['least_ratio'])} to {number(errors['most_ratio'])}"
    ratios = f" in the median of {count} candidates ({ends})" if count > 1 else ""
    ranks = f"none: {errors['rank_correlation_reason']}" if correlation is None else _two_digits(correlation)
    return (
        f"{quantity}: measured {number(errors['median_ratio'])} times the forecast{ratios}, "
        f"{errors['within']} of {count} within its 90 % interval; rank correlation {ranks}"
    )


def _one_error(entry: Entry) -> str:
    """Forecast, measured and ratio of one candidate."""
    found, parts = entry["forecast"], []
    for key, unit in (("seconds", "s"), ("joules", "J")):
        if found[f"{key}_ratio"] is not None:
            forecast, measured = (values[f"{key}_per_{_unit(entry)}"] for values in (found, entry))
            ratio = number(found[f"{key}_ratio"])
            parts.append(
                f"{number(forecast['value'])} {unit} forecast, {number(measured['mean'])} measured ({ratio})"
            )
    note = f"; not counted, with {', '.join(found['differs'])}" if found["differs"] else ""
    return f"#{entry['number']} {'; '.join(parts)}{note}"


def _unit(found: Mapping[str, Any]) -> str:
    """The unit of a tune.json or of one of its candidates; those of before there were videos have none."""
    return str(found.get("unit", "image"))


def _line(label: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"  {label:15s}", "dim"), (text, style), overflow="ignore", no_wrap=True)
