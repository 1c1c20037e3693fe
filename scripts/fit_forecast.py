"""Fits the constants of forecasts to the published runs, and writes the table and the plots of their errors.

python scripts/fit_forecast.py            # data/forecast.json, docs/forecast.md, docs/images/forecast.svg
python scripts/fit_forecast.py --check    # compare only: 1 where the file does not follow from the runs
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from mlenergy.diffusion.forecast.calibration import content_of
from mlenergy.diffusion.forecast.errors import Miss, misses
from mlenergy.diffusion.forecast.fitting import fit
from mlenergy.diffusion.forecast.formula import OF_VIDEOS, POWER, TIME, Kind
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.published import SOURCE, published_runs

ROOT = Path(__file__).parents[1]
FILE = ROOT / "mlenergy" / "diffusion" / "data" / "forecast.json"
PAGE = ROOT / "docs" / "forecast.md"
BEGIN, END = "<!-- made by scripts/fit_forecast.py -->", "<!-- end -->"
_SHOWN: tuple[Kind, ...] = ("runs", "models")  # of each model
_CLOSE = 0.02  # of a constant: another scipy may end a little elsewhere


def main() -> int:
    """Fit, or check the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rows = list(published_runs())
    if args.check:
        return _check(rows)
    found = misses(rows)
    content = content_of(rows, found, SOURCE)
    FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tables = "\n\n".join([_errors(content), _by_model(found), _constants(content)])
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    _plot(found, ROOT / "docs" / "images" / "forecast.svg")
    print(f"{len(rows)} runs; wrote {FILE.relative_to(ROOT)} and {PAGE.relative_to(ROOT)}")
    return 0


def _check(rows: list[Observed]) -> int:
    known, now = json.loads(FILE.read_text(encoding="utf-8")), fit(rows)
    wrong = [
        f"{gpu} {name}: {known[part][gpu][name]:g} in the file, {value:g} by the fit"
        for part, fitted in (("time", now.time), ("power", now.power))
        for gpu, values in fitted.items()
        for name, value in values.items()
        if abs(value / known[part][gpu][name] - 1) > _CLOSE
    ]
    print("\n".join(wrong) or "the constants follow from the runs")
    return int(bool(wrong))


def _errors(content: dict[str, Any]) -> str:
    said = {
        "runs": "a run of a known model on a known GPU (a fifth of the runs left out at a time)",
        "models": "a model that the fit has not seen (one left out at a time)",
        "gpus": "a GPU that the fit has not seen (H100 from B200 and the other way, by data sheets)",
        "videos": "a video by a known model on a known GPU (a fifth of the runs left out at a time)",
        "video_models": "a video by a model that the fit has not seen (one left out at a time)",
        "video_gpus": "a video on a GPU that the fit has not seen (by data sheets)",
    }
    lines = [
        "| forecast of | runs | seconds: median error | 90th percentile | 90 % interval "
        "| joules: median error | 90th percentile | 90 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, words in said.items():
        if kind not in content["errors"]:
            continue
        cells = [words, str(content["errors"][kind]["seconds"]["rows"])]
        for name in ("seconds", "joules"):
            e = content["errors"][kind][name]
            cells += [
                f"{e['median_error']:.1%}",
                f"{e['p90_error']:.1%}",
                f"{e['low'] - 1:+.0%} to {e['high'] - 1:+.0%}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_model(found: list[Miss]) -> str:
    lines = [
        "| model | runs | seconds, run left out: median error | model left out "
        "| joules, run left out | model left out | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in sorted({miss.row.model for miss in found}):
        own = {
            kind: [m for m in found if m.kind in (kind, OF_VIDEOS[kind]) and m.row.model == model]
            for kind in _SHOWN
        }
        worst = max(own["runs"], key=lambda miss: abs(miss.seconds))
        work = worst.row.work
        where = f"{worst.row.card.name} × {work.gpus}, Ulysses {work.ulysses}, ring {work.ring}"
        cells = [model, str(len(own["runs"]))]
        for name in ("seconds", "joules"):
            cells += [f"{_median([abs(math.e ** getattr(m, name) - 1) for m in own[k]]):.1%}" for k in own]
        lines.append("| " + " | ".join([*cells, f"{math.e**worst.seconds - 1:+.0%} ({where})"]) + " |")
    return "\n".join(lines)


def _constants(content: dict[str, Any]) -> str:
    gpus = list(content["time"])
    lines = [f"| constant | unit | {' | '.join(gpus)} | meaning |", "|---|---|" + "---|" * (len(gpus) + 1)]
    for part, table in (("time", TIME), ("power", POWER)):
        for name, constant in table.items():
            values = " | ".join(f"{content[part][gpu][name]:.3g}" for gpu in gpus)
            lines.append(f"| `{name}` | {constant.unit} | {values} | {constant.meaning} |")
    factors = ", ".join(f"{name} {value:.2f}" for name, value in content["models"].items())
    return "\n".join(lines) + f"\n\nFactors of the models' kernel times: {factors}."


def _short(model: str) -> str:
    name = model.rpartition("/")[2].replace("stable-diffusion-", "SD")
    for ending in ("_1024px_diffusers", "-Diffusers", "-XL-2-1024-MS"):
        name = name.removesuffix(ending)
    return name


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _plot(found: list[Miss], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forecast"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    models = sorted({miss.row.model for miss in found})
    runs = [miss for miss in found if miss.kind in ("runs", "videos")]
    videos = {miss.row.model for miss in found if miss.kind == "videos"}
    for panel, quantity, unit in ((panels[0], "seconds", "s"), (panels[1], "joules", "J")):
        for model in models:
            own = [miss for miss in runs if miss.row.model == model]
            truth = [m.row.duration_s if unit == "s" else m.row.energy_j or 0 for m in own]
            guess = [t * math.e ** getattr(m, quantity) for t, m in zip(truth, own, strict=True)]
            mark = "^" if model in videos else "o"
            panel.scatter(truth, guess, s=9, label=_short(model), marker=mark)
        ends = panel.get_xlim()
        panel.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        panel.set(
            xscale="log",
            yscale="log",
            xlabel=f"published {unit} of an iteration",
            ylabel=f"forecast {unit}, run left out",
        )
    panels[0].legend(fontsize=7)
    for position, model in enumerate(models):
        for kind, shift, colour in (("runs", -0.15, "tab:blue"), ("models", 0.15, "tab:orange")):
            own = [m.seconds for m in found if m.kind in (kind, OF_VIDEOS[kind]) and m.row.model == model]
            line = {"color": colour}
            panels[2].boxplot(
                own,
                positions=[position + shift],
                widths=0.25,
                flierprops={"markersize": 2},
                boxprops=line,
                medianprops=line,
            )
    panels[2].axhline(0, color="0.6", linewidth=0.8)
    panels[2].set_xticks(range(len(models)), [_short(m) for m in models], rotation=30, ha="right", fontsize=7)
    panels[2].set(
        ylabel="ln(forecast ÷ published), seconds", title="blue: run left out; orange: model left out"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
