"""`mlenergy report`: what it says, what it leaves out, and what it does with folders that are odd."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from result_folders import result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.html.command import main


def data_of(page: Path) -> dict[str, list[dict[str, object]]]:
    """The data that a page holds."""
    text = page.read_text("utf-8")
    begin = text.index('id="data">') + len('id="data">')
    found: dict[str, list[dict[str, object]]] = json.loads(text[begin : text.index("</script>", begin)])
    return found


def test_a_page_of_all_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a" / "gpu", result((8.0, 12.0), (6000.0, 4000.0)))
    save(tmp_path / "cpu", result(on_cpu=True))
    save(tmp_path / "torn", "{")
    save(tmp_path / "foreign", {"tests": 3})
    save(tmp_path / "newer", result() | {"schema_version": 9})
    save(tmp_path / "pending", result() | {"effects_pending": True})
    save(tmp_path / "stopped", {"iterations": [1, 2]}, name="results_interrupted.json")
    out = tmp_path / "report.html"
    assert main([str(tmp_path), "--out", str(out), "--no_published"]) == 0
    data = data_of(out)
    assert {row["name"] for row in data["rows"]} == {"a/gpu", "cpu"}
    problems = {str(path).split("/")[0]: reason for path, reason in data["problems"]}
    assert set(problems) == {"torn", "foreign", "newer", "pending", "stopped"}
    assert "not whole JSON" in problems["torn"] and "schema version 9" in problems["newer"]
    assert "stopped after 2 measured iterations" in problems["stopped"]
    assert f"{out}: 2 runs" in capsys.readouterr().out


def test_published_figures_are_there_unless_told_otherwise(tmp_path: Path) -> None:
    save(tmp_path / "a", result())
    out = tmp_path / "report.html"
    main([str(tmp_path), "--out", str(out)])
    assert len(data_of(out)["rows"]) == 1 + 479 + 287


def test_the_newest_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        folder = save(tmp_path / name, result())
        os.utime(folder / "results.json", (1e9 - age, 1e9 - age))
    out = tmp_path / "report.html"
    main([str(tmp_path), "--out", str(out), "--no_published", "--rows", "2"])
    data = data_of(out)
    assert [row["name"] for row in data["rows"]] == ["newest", "older"]
    assert data["problems"] == [["results", "1 older one is left out: the page holds 2 (--rows)"]]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        main([str(tmp_path / "absent")])
    with pytest.raises(UserError, match="there is no result below"):
        main([str(tmp_path)])
    save(tmp_path / "torn", "{")
    with pytest.raises(UserError, match=r"no complete result below .*torn.*not whole JSON"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="is a folder"):
        main([str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(UserError, match="--images"):
        main([str(tmp_path), "--images", "-1"])
