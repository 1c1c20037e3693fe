"""The report in a real browser: sorting, filters, charts, keyboard, phone; no error and no request."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from browser import Browser
from PIL import Image
from result_samples import ENVIRONMENT, gpu_measurement, make_plan, prompt_set

from mlenergy.diffusion.report.html.collect import Limits, Report
from mlenergy.diffusion.report.html.page import page_of
from mlenergy.diffusion.results.build import RunRecord, build_result

pytestmark = pytest.mark.full

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
COMMAND = ["torchrun", "-m", "mlenergy.diffusion.benchmark", "--workload.prompt_prefix", HOSTILE]
PLAN = make_plan()
RECORD = RunRecord(PLAN, gpu_measurement(), prompt_set(PLAN), ENVIRONMENT)
BASE = json.dumps(build_result(RECORD, [None] * RECORD.completed))


def run(s: float, j: float | None, **changes: Any) -> dict[str, Any]:
    """A result with a time and an energy per image."""
    result: dict[str, Any] = json.loads(BASE)
    gpus, batch = changes.pop("gpus", 2), changes.pop("batch", 4)
    result |= {"avg_time_per_image": s, "energy_per_image_j": j, "throughput_images_per_sec": 1 / s}
    result |= {"generation_time": s * batch * len(result["iterations"]), "batch_size": batch, "warnings": []}
    result["configuration"]["parallel"] |= {"ulysses": gpus, "world_size": gpus}
    result["environment"] |= {"command_line": COMMAND}
    if j is None:
        result["energy_measurement"]["reason"] = "the counter could not be read"
    return result | changes


FLUX, SD3 = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-3-medium-diffusers"
# FLUX on 1, 2 and 4 GPUs: speed-ups 1.8 and 3 of a batch; SD3 slower than all with no joules in one run.
RUNS = {
    "flux-1": run(9.0, 5000.0, gpus=1),
    "flux-2": run(5.0, 5200.0, gpus=2),
    "flux-4": run(3.0, 6000.0, gpus=4),
    "sd3-fast": run(4.0, 5900.0, model_id=SD3, batch=1),
    "sd3-slow": run(20.0, 7000.0, model_id=SD3, batch=2),
    "sd3-none": run(30.0, None, model_id=SD3, batch=8),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs above, two of them with images and one with a timeline, beside published figures."""
    folder = tmp_path_factory.mktemp("report")
    report = Report()
    for name, result in RUNS.items():
        place = folder / name
        place.mkdir()
        if name in ("flux-1", "flux-2"):
            for k, image in enumerate(result["generation_results"][:2]):
                Image.new("RGB", (256, 256), ("red", "blue")[k]).save(place / f"{k}.png")
                image |= {"image": f"{k}.png", "prompt": (HOSTILE, "a fox")[k], "seed": 42 + k}
        if name == "flux-1":
            times = [k / 10 for k in range(100)]
            columns: dict[str, Any] = {"node": ["n"] * 100, "uuid": ["GPU-a"] * 100, "time_s": times}
            columns |= {"power_w": [300.0] * 100, "window": [0] * 50 + [None] * 50}
            parquet.write_table(pa.table(columns), place / "timeline.parquet")
        if name == "flux-4":
            result["warnings"] = [{"code": "drift", "message": f"slower {HOSTILE}"}]
        report.add(result, place, name)
    report.problems.append((f"x/{HOSTILE}", "not valid JSON"))
    file = folder / "report.html"
    file.write_text(page_of(f"Report {HOSTILE}", report.data("6 runs", True, datetime.now(UTC))), "utf-8")
    return file


@pytest.fixture
def report(browser: Browser, page: Path) -> Browser:
    browser.open(page)
    browser.choose("#filter-published", "none")
    return browser


def column(browser: Browser, key: str) -> list[str]:
    """The texts of a column."""
    keys = browser.do("return [...document.querySelectorAll('[data-sort]')].map((b) => b.dataset.sort)")
    return browser.texts(f"#table tbody tr td:nth-child({keys.index(key) + 2})")


def test_no_error_no_request_no_foreign_script(browser: Browser, page: Path) -> None:
    browser.open(page)
    for selector in ("#theme", "[data-sort=j]", ".openrun", "#clear"):
        browser.find(selector).click()
    assert browser.console() == []
    assert browser.addresses() == {page.as_uri()}
    assert browser.driver.title.startswith("Report </script>")  # as text: "owned" would replace it
    assert browser.do("return document.querySelectorAll('script').length") == 2
    assert browser.do("return document.querySelectorAll('img[src=x]').length") == 0


def test_columns_sort_both_ways_and_the_unknown_is_last(report: Browser) -> None:
    assert [text.split(" ")[0] for text in column(report, "s")] == ["3", "4", "5", "9", "20", "30"]
    report.find("[data-sort=j]").click()
    joules = ["5,000", "5,200", "5,900", "6,000", "7,000"]
    assert [text.split(" ")[0] for text in column(report, "j")] == [*joules, "–"]
    report.find("[data-sort=j]").click()
    assert [text.split(" ")[0] for text in column(report, "j")] == [*reversed(joules), "–"]
    assert report.find("th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert report.do("return document.activeElement.dataset.sort") == "j"  # the keyboard's place is kept


def test_a_missing_number_tells_its_reason(report: Browser) -> None:
    titles = report.do(
        "return [...document.querySelectorAll('#table td')].filter((c) => c.textContent === '–')"
        ".map((c) => c.title)"
    )
    assert "the counter could not be read" in titles


def test_filters_combine(report: Browser) -> None:
    report.choose("#filter-model", SD3)
    assert len(column(report, "s")) == 3
    report.choose("#filter-batch", "2")
    assert column(report, "s")[0].startswith("20")
    assert report.find("#count").text == f"1 measured run of {report.do('return rows.length')} rows"
    report.find("#clear").click()
    assert len(column(report, "s")) == 6
    report.find("#search").send_keys("flux ULYSSES")  # both words, whatever their case
    assert [text.split(" ")[0] for text in column(report, "s")] == ["3", "5"]


def test_published_figures_are_marked(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert (
        browser.do("return rows.filter(isShown).filter((r) => r.source === 'published').length") == 75
    )  # FLUX
    tags = browser.texts("tr.published .tag")
    assert tags and set(tags) == {"published"}
    browser.choose("#filter-published", "all")
    assert browser.do("return shown.length") == 479 + 6  # of the task of the measured runs
    browser.choose("#filter-task", "")
    assert browser.do("return shown.length") == 479 + 287 + 6


def test_the_front_has_the_runs_that_none_beats(report: Browser) -> None:
    # 3 s with 6000 J, 4 s with 5900, 5 s with 5200, 9 s with 5000; 20 s with 7000 is beaten.
    assert report.do("return front(shown.filter((r) => known(r.j))).map((r) => r.s)") == [3, 4, 5, 9]
    assert len(report.all("#pareto-chart [tabindex='0']")) == 4
    assert len(report.all("#pareto-chart [data-point]:not([data-point=''])")) == 5
    # On the drawing too: faster lies left, fewer joules lie lower.
    x = report.do(
        "return [...document.querySelectorAll('#pareto-chart circle[tabindex]')].map((c) =>"
        " [rows[c.dataset.point].s, Number(c.getAttribute('cx')), Number(c.getAttribute('cy'))])"
    )
    ranked = sorted(x)
    assert [p[1] for p in ranked] == sorted(p[1] for p in ranked)
    assert [p[2] for p in ranked] == sorted(p[2] for p in ranked)


def test_a_doubtful_run_is_marked_and_never_on_the_front(browser: Browser, tmp_path: Path) -> None:
    report = Report()
    wrong = run(1.0, 10.0, warnings=[{"code": "power_mismatch", "message": "two readings differ"}])
    for name, result in {"good": run(2.0, 20.0), "worse": run(3.0, 30.0), "wrong": wrong}.items():
        report.add(result, tmp_path, name)
    file = tmp_path / "report.html"
    file.write_text(page_of("Doubt", report.data("", False, datetime.now(UTC))), "utf-8")
    browser.open(file)
    assert browser.do(
        "return [...document.querySelectorAll('[tabindex][data-point]')].map((p) =>"
        " rows[p.dataset.point].name)"
    ) == ["good"]
    assert browser.texts("tr .tag.warn")[:2] == ["doubtful", "1 warning"]


def test_a_point_opens_its_run_by_keyboard(report: Browser) -> None:
    report.do("document.querySelector('#pareto-chart [tabindex]').focus()")
    report.press("\ue007")  # Enter
    assert report.find(".openrun[aria-expanded=true]").text == FLUX
    assert report.do("return document.activeElement.className") == "openrun"


def test_scaling_is_speed_up_over_the_fewest_gpus(report: Browser) -> None:
    rows = report.texts("#scaling-table tbody td")
    assert [rows[k : k + 5] for k in range(0, len(rows), 6)] == [
        ["1", "–", "36", "1", "100 %"],
        ["2", "Ulysses 2", "20", "1.8", "90 %"],
        ["4", "Ulysses 4", "12", "3", "75 %"],
    ]


def test_details_have_the_command_and_the_warnings(report: Browser) -> None:
    report.find("tr[data-run] .openrun").click()
    assert report.find("tr.detail pre").text.startswith("torchrun -m mlenergy.diffusion.benchmark")
    assert "slower </script>" in report.find("tr.detail .warnings").text
    report.find("tr.detail button").click()
    assert report.find("tr.detail button").text == "Copied"


def test_stages_power_and_images(report: Browser) -> None:
    assert report.do("return document.querySelectorAll('#stages-time rect').length") == 6 * 4
    assert len(report.all("#power-charts .window")) == 1
    assert len(report.all("#power-charts .series")) == 1
    assert len(report.all("#image-grid tbody tr")) == 2  # a prompt and its seed is a row
    assert len(report.all("#image-grid img")) == 4
    assert report.do(
        "return [...document.querySelectorAll('#image-grid img')].every((i) => i.naturalWidth > 0)"
    )


def test_problems_are_listed(report: Browser) -> None:
    assert report.texts("#problem-list li") == [f"x/{HOSTILE}: not valid JSON"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(report: Browser, theme: str) -> None:
    while report.find("#theme").get_attribute("data-now") != theme:
        report.find("#theme").click()
    contrast = report.do(_CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast  # WCAG 2.1, level AA


# Relative luminance and contrast ratio as in WCAG 2.1, of every pair of text and ground that the page uses.
_CONTRAST = """
const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const part = (v) => { const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const byte = (hex, k) => parseInt(hex.slice(k, k + 2), 16);
const light = (hex) => 0.2126 * part(byte(hex, 1)) + 0.7152 * part(byte(hex, 3))
  + 0.0722 * part(byte(hex, 5));
const found = {};
for (const [text, ground] of [["--ink", "--paper"], ["--ink", "--panel"], ["--soft", "--paper"],
    ["--soft", "--panel"], ["--accent", "--paper"], ["--accent", "--panel"], ["--warn", "--warn-paper"],
    ["--warn", "--panel"]]) {
  const [a, b] = [light(of(text)), light(of(ground))].sort((x, y) => y - x);
  found[`${text} on ${ground}`] = (a + 0.05) / (b + 0.05);
}
return found;
"""


def test_a_phone_scrolls_tables_and_not_the_page(browser: Browser, page: Path) -> None:
    browser.open(page, width=500, height=800)  # the least that a window of this browser can have
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 750, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        browser.driver.get(page.as_uri())
        assert browser.do("return document.documentElement.scrollWidth") <= 375
        assert browser.do("const t = document.querySelector('.scroll'); return t.scrollWidth > t.clientWidth")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_five_thousand_runs_stay_fluid(browser: Browser, tmp_path: Path) -> None:
    report = Report(Limits(images=0))
    for k in range(5000):
        result = run(1 + k % 97, 1000.0 + k % 89, gpus=2 ** (k % 4), batch=2 ** (k % 5))
        report.add(result, tmp_path, f"run-{k}")
    file = tmp_path / "report.html"
    file.write_text(page_of("Many", report.data("5,000 runs", True, datetime.now(UTC))), "utf-8")
    start = time.monotonic()
    browser.open(file)
    assert time.monotonic() - start < 20  # about 1.5 s alone; twenty tell a page that hangs
    # From a click until everything is drawn again. A page that draws all rows takes a hundred times as long.
    slowest = browser.do(
        "const t = [...document.querySelectorAll('[data-sort]')].slice(0, 6).map((b) => {"
        " const s = performance.now();"
        " document.querySelector(`[data-sort=${b.dataset.sort}]`).click(); document.body.offsetHeight;"
        " return performance.now() - s; }); return Math.max(...t)"
    )
    assert slowest < 2000
    assert len(browser.all("#table tbody tr")) == 25
    browser.choose("#per-page", "500")
    assert len(browser.all("#table tbody tr")) == 500
    assert browser.console() == []
