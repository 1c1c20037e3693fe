"""A study's report as files: report.json, one CSV a table, report.txt, report.html, and copied images."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mlenergy.diffusion.report.html.extras import inside
from mlenergy.diffusion.results.atomic import write_json, written_aside
from mlenergy.diffusion.studies.content import Chart, Gap, Measured, Report, Table, Value
from mlenergy.diffusion.studies.page import page_of
from mlenergy.diffusion.studies.text import print_report

REPORT, PAGE, PLAIN = "report.json", "report.html", "report.txt"
GAPS = "gaps"  # name of the table of runs without a result
_WIDTH = 180


def write_report(report: Report, folder: Path, head: Mapping[str, Any]) -> Path:
    """Write all files of a report into a folder.

    Args:
        report: the content.
        folder: of the study.
        head: first keys of report.json: study, command, version, date.

    Returns:
        The page.

    Raises:
        UserError: a file cannot be written.
    """
    for name, source in report.files.items():
        target = inside(folder, name)
        with written_aside(target) as aside:
            shutil.copyfile(source, aside)
    for name, content in report.texts.items():
        _write(inside(folder, name), content)
    for table in report.tables:
        _write(folder / f"{table.name}.csv", csv_text(table))
    if all(table.name != GAPS for table in report.tables):
        (folder / f"{GAPS}.csv").unlink(missing_ok=True)  # of an earlier report
    text = io.StringIO()
    print_report(report, Console(file=text, width=_WIDTH, highlight=False, markup=False, emoji=False))
    _write(folder / PLAIN, "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
    _write(folder / PAGE, page_of(report, head))
    write_json(folder / REPORT, {**head, **report_json(report)})
    return folder / PAGE


def report_json(report: Report) -> dict[str, Any]:
    """The report as JSON: what is not known is null, its reason under the row's `reasons`."""
    charts = [part for part in report.parts if isinstance(part, Chart)]
    return {
        "title": report.title,
        "summary": list(report.summary),
        "tables": {
            table.name: {
                "title": table.title,
                "columns": {column.key: column.label for column in table.columns},
                "rows": [_row_json(table, row) for row in table.rows],
            }
            for table in report.tables
        },
        "charts": {
            chart.name: {
                series.label: {
                    "points": [[point.x, point.y] for point in series.points],
                    "line": [list(point) for point in series.line],
                }
                for series in chart.series
            }
            for chart in charts
        },
        "files": list(report.files),
        **report.data,
    }


def csv_text(table: Table) -> str:
    """Numbers in full, with the ends of their intervals; what is not known is empty, with its reason last."""
    rows = [_flat(table, row) for row in table.rows]
    headings = list(dict.fromkeys(name for row in rows for name in row)) or [c.key for c in table.columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*headings, "reasons"])
    for row, own in zip(rows, table.rows, strict=True):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in _reasons(table, own).items())
        writer.writerow([*(_csv_value(row.get(name)) for name in headings), reasons])
    return out.getvalue()


def _row_json(table: Table, row: Mapping[str, Value]) -> dict[str, Any]:
    measured = {c.key: v for c in table.columns if isinstance(v := row[c.key], Measured)}
    doubts = {key: list(value.doubts) for key, value in measured.items() if value.doubts}
    return {**_flat(table, row), "reasons": _reasons(table, row), "doubts": doubts}


def _flat(table: Table, row: Mapping[str, Value]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for column in table.columns:
        value = row[column.key]
        if isinstance(value, Measured):
            flat[column.key] = value.value
            if value.low is not None:
                flat |= {f"{column.key}_ci95_low": value.low, f"{column.key}_ci95_high": value.high}
        else:
            flat[column.key] = None if isinstance(value, Gap) else value
    return flat


def _reasons(table: Table, row: Mapping[str, Value]) -> dict[str, str]:
    return {c.key: v.reason for c in table.columns if isinstance(v := row[c.key], Gap)}


def _csv_value(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _write(file: Path, text: str) -> None:
    with written_aside(file) as aside:
        aside.write_text(text, encoding="utf-8", errors="replace")
