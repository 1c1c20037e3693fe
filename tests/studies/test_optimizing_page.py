"""docs/optimizing.md against the study's report that it quotes: its table, and the numbers below it."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "optimizing.md").read_text()
STUDY = json.loads((DOCS / "measurements" / "tiers_cpu.json").read_text())
FACTORS = STUDY["tables"]["tiers"]["rows"]
FIGURES = STUDY["tables"]["figures"]["rows"]
BY_NAME = {row["techniques"]: {**figures, **row} for row, figures in zip(FACTORS, FIGURES, strict=True)}


def digits(value):
    return "–" if value is None else format(Decimal(f"{value:.3g}"), "f")


def table():
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| (–|stack|\d) ", line)
    ]
    assert rows and all(len(row) == 8 for row in rows)
    return rows


def test_the_table_holds_every_row_with_a_result():
    measured = [row["techniques"] for row in FIGURES if row["time_per_image_s"] is not None]
    assert [row[1] for row in table()] == measured and len(measured) > 8


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_a_row_quotes_the_report(row):
    tier, name, steps, seconds, factor, megabytes, psnr, ssim = row
    known = BY_NAME[name]
    assert (tier, int(steps), seconds) == (known["tier"], known["steps"], digits(known["time_per_image_s"]))
    ends = (known.get("speed_factor_ci95_low"), known.get("speed_factor_ci95_high"))
    expected = digits(known["speed_factor"])
    expected += f" ({digits(ends[0])} to {digits(ends[1])})" if ends[0] is not None else ""
    figures = next(one for one in FIGURES if one["techniques"] == name)
    factors = next(one for one in FACTORS if one["techniques"] == name)
    assert factor == expected + (" *" if figures["doubts"] or factors["doubts"] else "")
    assert megabytes == digits(1000 * known["weights_gb"])
    identical = "identical" in factors["reasons"].get("psnr_db", "")
    assert psnr == ("identical" if identical else digits(known["psnr_db"]))
    assert ssim == digits(known["ssim"])


def test_the_numbers_below_the_table_follow_from_the_report():
    base, compiled = STUDY["baseline"], STUDY["compiled"]
    seconds = BY_NAME["baseline"]["time_per_image_s"]
    share = base["denoise_s"] / seconds
    saved = seconds - BY_NAME["torch.compile"]["time_per_image_s"]
    said = [
        f"{100 * share:.1f} % of the baseline's window",
        digits(1 / (1 - share * (1 - 20 / 50))) + ";",
        f"{digits(BY_NAME['DPM-Solver++, 20 steps']['speed_factor'])} was measured with DPM-Solver++",
        f"{digits(BY_NAME['UniPC, 20 steps']['speed_factor'])} with UniPC",
        f"{digits(BY_NAME['torch.compile']['speed_factor'])} times faster",
        f"a first call of {digits(compiled['first_call_s'])} s instead of {digits(base['first_call_s'])} s",
        f"pays from {round((compiled['first_call_s'] - base['first_call_s']) / saved)} images on",
        f"takes {digits(1 / BY_NAME['float16']['speed_factor'])} times as long",
        STUDY["command"],
        STUDY["date"][:10],
        f"torch {STUDY['machine']['torch']}",
    ]
    assert [words for words in said if words not in PAGE] == []


def test_links_lead_to_files():
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (DOCS / link).is_file(), link
