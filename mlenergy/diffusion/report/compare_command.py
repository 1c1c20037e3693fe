"""The verb `mlenergy compare A B…`: ratios with intervals, and a gate for continuous integration."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.compare_view import interval_text, json_text, markdown, print_comparison
from mlenergy.diffusion.report.comparison import Compared, Comparison, compare
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.report.show_command import wide_console
from mlenergy.diffusion.results.collect import collect, no_results
from mlenergy.diffusion.results.repeats import pool

PROG = "mlenergy compare"
EXCEEDED = 3  # exit code


@option_group()
@dataclass(frozen=True)
class CompareArgs:
    """Compare results: ratios of seconds and joules with their intervals, and what the sides differ in.

    The first PATH is the base; one alone is taken apart. docs/reports.md says how ratios are judged.
    """

    path: tyro.conf.Positional[tuple[str, ...]]
    """Result folders, folders that hold some, or patterns in quotes."""
    fail_if_slower: Annotated[str | None, tyro.conf.arg(metavar="PERCENT")] = None
    """Exit with code 3 where a side takes more seconds an image (a video) than the base, such as 5%."""
    fail_if_more_energy: Annotated[str | None, tyro.conf.arg(metavar="PERCENT")] = None
    """Exit with code 3 where a side takes more joules an image (a video) than the base, such as 5%."""
    markdown: bool = False
    """Print tables of Markdown."""
    json: bool = False
    """Print JSON, with numbers in full."""


def main(argv: list[str]) -> int:
    """Print the comparison.

    Returns:
        0, or 3 where a limit is exceeded.

    Raises:
        UserError: a path is not understood, there is nothing to compare, or what a limit is for is not known.
    """
    args = parse(CompareArgs, argv, PROG)
    if args.markdown and args.json:
        raise UserError("--markdown and --json exclude each other; choose one of them")
    limits: dict[Compared, float | None] = {
        "seconds": _share("fail_if_slower", args.fail_if_slower),
        "joules": _share("fail_if_more_energy", args.fail_if_more_energy),
    }
    sides, others = [], []
    for word in args.path:
        found = collect([word])
        if not found.results:
            raise no_results([word], found.others)
        sides.append((word, pool(found.results)))
        others += found.others
    comparison = compare(sides, others)
    exceeded = [line for figure, share in limits.items() for line in exceeding(comparison, figure, share)]
    if args.json:
        print(json_text(comparison, exceeded), end="")
    elif args.markdown:
        print(markdown(comparison), end="")
    else:
        print_comparison(comparison, wide_console(sys.stdout))
    for line in exceeded:
        print(f"mlenergy: {line}", file=sys.stderr)
    _refuse_unknown(comparison, limits["joules"])
    return EXCEEDED if exceeded else 0


def exceeding(comparison: Comparison, figure: Compared, share: float | None) -> list[str]:
    """A line for each pair whose ratio is above a limit and whose interval shows a difference.

    Args:
        comparison: the pairs.
        figure: what is limited.
        share: by how much the other side may be above the base, 0.05 for 5 %; None: no limit.
    """
    lines = []
    for pair in comparison.pairs if share is not None else ():
        ratio = pair.ratio(figure)
        # Without an interval the means decide: a limit that lets such a result pass would guard nothing.
        if ratio is None or share is None or ratio.value <= 1 + share or ratio.shows_difference is False:
            continue
        said = "slower" if figure == "seconds" else "more energy"
        interval = "" if ratio.low is None else f", 95 % interval {interval_text(ratio)}"
        percent, name = number((ratio.value - 1) * 100), f"{pair.other.name} ({pair.of_other.first.folder})"
        limit = f"over the limit of {share * 100:g} %"
        lines.append(f"{name} is {percent} % {said} than {pair.base.name}{interval}: {limit}")
    return lines


def _share(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise UserError(f"--{option}: cannot read {text!r}; write a percentage such as 5%")
    return float(match[1]) / 100


def _refuse_unknown(comparison: Comparison, share: float | None) -> None:
    unknown = next((pair for pair in comparison.pairs if pair.ratio("joules") is None), None)
    if share is not None and unknown is not None:
        raise UserError(
            f"--fail_if_more_energy: joules are not known of {unknown.reason('joules')}; "
            "measure them, or leave the limit out"
        )
