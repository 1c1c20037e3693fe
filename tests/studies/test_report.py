"""A report's files: unknown is null with a reason everywhere, and no text becomes markup."""

from __future__ import annotations

import csv
import html.parser
import json

import pytest
from result_folders import result

from mlenergy.diffusion.studies.chart import Axis, chart_svg
from mlenergy.diffusion.studies.content import (
    FIGURE_COLUMNS,
    Chart,
    Column,
    Gap,
    Measured,
    Picture,
    Pictures,
    Point,
    Report,
    Series,
    Table,
    Text,
    figures_of,
)
from mlenergy.diffusion.studies.files import write_report

HEAD = {"study": "example", "command": "mlenergy study run example --x '<b>'", "date": "2026-01-02"}
EVIL = '<script>alert("x")</script>'


def example(**more):
    columns = (Column("name", "name"), Column("time_s", "s"), Column("count", "n"), Column("on", "on"))
    rows = [
        {"name": EVIL, "time_s": Measured(0.25, 0.2, 0.3, ("it drifted",)), "count": 12345, "on": True},
        {"name": "b", "time_s": Gap("no clock"), "count": 2, "on": False},
    ]
    points = [Point(1.0, 2.0, 1.5, 2.5, EVIL), Point(10.0, 20.0)]
    parts = [
        Table("figures", f"Figures {EVIL}", columns, rows, "a note"),
        Chart("chart", "Chart", "x", "y", [Series(EVIL, points, [(1.0, 2.0), (10.0, 20.0)])], log=True),
        Pictures("pictures", "Pictures", ["m"], [("prompt", [Picture(None, "", "it was not made")])]),
        Text("Text", [EVIL]),
    ]
    return Report("Title", ["a sentence"], parts, **more)


@pytest.fixture
def written(tmp_path):
    source = tmp_path / "source.png"
    source.write_bytes(b"image")
    write_report(example(files={"model/a.png": source}, texts={"log.txt": "line\n"}), tmp_path / "out", HEAD)
    return tmp_path / "out"


def test_figures_of_a_cell_are_its_results_own(make_cell):
    content = result([8.0, 8.4], [400.0, 440.0], warnings=[("power_mismatch", "the sensors disagree")])
    cell = make_cell(content)
    found, record = figures_of(cell), cell.runs[0].record
    seconds, joules, memory = (found[column.key] for column in FIGURE_COLUMNS)
    assert seconds.value == pytest.approx(8.2 / 4) and joules.value == pytest.approx(420 / 4)
    half_s = record.time_per_image_ci95_half_s
    assert (seconds.low, seconds.high) == pytest.approx((max(0, 2.05 - half_s), 2.05 + half_s))
    assert joules.low < joules.value < joules.high
    assert (seconds.doubts, joules.doubts) == ((), ("the sensors disagree",))
    assert memory.value == 34.0


def test_figures_without_a_result_have_its_reason(make_cell):
    found = figures_of(make_cell("it broke"))
    assert [found[column.key] for column in FIGURE_COLUMNS] == [Gap("it broke")] * 3


def test_json_has_null_with_the_reason_and_the_interval(written):
    told = json.loads((written / "report.json").read_text())
    first, second = told["tables"]["figures"]["rows"]
    assert (first["time_s"], first["time_s_ci95_low"], first["time_s_ci95_high"]) == (0.25, 0.2, 0.3)
    assert first["doubts"] == {"time_s": ["it drifted"]} and first["reasons"] == {}
    assert second["time_s"] is None and second["reasons"] == {"time_s": "no clock"}
    assert told["charts"]["chart"][EVIL]["points"] == [[1.0, 2.0], [10.0, 20.0]]
    assert told["study"] == "example" and told["files"] == ["model/a.png"]


def test_csv_has_an_empty_field_and_the_reason_last(written):
    first, second = csv.DictReader((written / "figures.csv").read_text().splitlines())
    assert first["time_s"] == "0.25" and first["time_s_ci95_high"] == "0.3" and first["on"] == "true"
    assert second["time_s"] == "" and second["reasons"] == "time_s: no clock"


def test_text_marks_what_is_unknown_or_doubtful(written):
    lines = (written / "report.txt").read_text().splitlines()
    assert any("0.25 ± 0.05 [1]" in line and "12,345" in line for line in lines)
    assert any("– [2]" in line for line in lines)
    assert any("[1]" in line and "it drifted" in line for line in lines)
    assert any("[2]" in line and "no clock" in line for line in lines)


def test_files_and_texts_lie_beside_the_report(written):
    assert (written / "model" / "a.png").read_bytes() == b"image"
    assert (written / "log.txt").read_text() == "line\n"


def test_no_text_becomes_markup_on_the_page(written):
    class Tags(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.seen = [], set()

        def handle_starttag(self, tag, attributes):
            self.seen.add(tag)
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attributes):
            self.seen.add(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    page = (written / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.seen and "b" not in tags.seen
    assert "&lt;script&gt;" in page and "it was not made" in page
    assert "default-src 'none'" in page


def test_a_file_outside_of_the_folder_is_refused(tmp_path):
    source = tmp_path / "source.png"
    source.write_bytes(b"image")
    with pytest.raises(ValueError, match="outside"):
        write_report(example(files={"../a.png": source}), tmp_path / "out", HEAD)


def test_an_earlier_reports_list_of_gaps_goes(tmp_path):
    (tmp_path / "gaps.csv").write_text("run\n")
    write_report(example(), tmp_path, HEAD)
    assert not (tmp_path / "gaps.csv").exists()


def test_points_lie_where_their_axis_says():
    linear = Axis([0.0, 100.0], 0, 106, log=False)
    assert [linear.at(x) for x in (0, 50, 100)] == [0, 50, 100]
    log = Axis([1.15, 100 / 1.15], 0, 200, log=True)
    assert [log.at(x) for x in (1, 10, 100)] == [0, 100, 200]
    assert log.at(0.0) == 0  # the lower end of an interval: 0 has no logarithm
    assert [mark for mark in log.marks if mark in (1, 2, 5, 10, 20, 50)] == [1, 2, 5, 10, 20, 50]


def test_a_chart_without_points_says_so():
    assert "Nothing was measured" in chart_svg(Chart("c", "C", "x", "y", [Series("s", [])]))


def test_a_chart_of_one_point_can_be_drawn():
    for log in (True, False):
        chart = Chart("c", "C", "x", "y", [Series("s", [Point(3.0, 7.0)])], log=log)
        assert chart_svg(chart).count("<circle") == 2  # the point, and its colour in the legend
