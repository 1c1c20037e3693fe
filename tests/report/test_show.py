"""The table of results: every number by hand, repeats pooled, doubts marked, and every bad input named."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from result_folders import ENVIRONMENT, NODE, result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.show_command import main
from mlenergy.diffusion.results import plausibility
from mlenergy.diffusion.results.index import refresh
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import DOUBTFUL, pool

MLENERGY = Path(sys.executable).with_name("mlenergy")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def show(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv):
        assert main([*map(str, argv)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def runs(tmp_path):
    """Batch 4: starts of 2.05 and 2.15 s an image, 1300 and 1250 J. Batch 2: one start, without joules."""
    save(tmp_path / "runs/one", seconds=(8.0, 8.4), joules=(5000.0, 5400.0), peak_bytes=34_000_000_000)
    save(tmp_path / "runs/two", seconds=(8.4, 8.8), joules=(4800.0, 5200.0), peak_bytes=35_000_000_000)
    save(tmp_path / "runs/other", seconds=(3.0, 3.2, 3.4), batch_size=2)
    return tmp_path / "runs"


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_every_number_by_hand(show, runs):
    other, pooled = rows_of(show("runs", "--csv"))
    # Between starts: sd(2.05, 2.15) = 0.0707107, t(0.975, 1) = 12.7062, over sqrt(2).
    assert float(pooled["seconds_per_image"]) == pytest.approx(2.1)
    assert float(pooled["seconds_per_image_ci95_half"]) == pytest.approx(12.7062 * 0.05, rel=1e-5)
    assert float(pooled["seconds_per_image_spread"]) == pytest.approx(0.0707107 / 2.1, rel=1e-5)
    assert float(pooled["joules_per_image"]) == pytest.approx(1275)
    # sd(1300, 1250) = 35.3553, so 12.7062 x 25; within starts: sqrt(2 x 70.71^2 / 2) / 2 x t(2) = 152.1
    assert float(pooled["joules_per_image_ci95_half"]) == pytest.approx(12.7062 * 25, rel=1e-5)
    assert float(pooled["peak_memory_gb"]) == 35.0, "the fuller start"
    assert float(pooled["images_per_s"]) == pytest.approx(1 / 2.1)
    assert (pooled["starts"], pooled["batch_size"]) == ("2", "4")
    # One start of 1.5, 1.6 and 1.7 s an image: s = 0.1, t(0.975, 2) = 4.30265, over sqrt(3).
    assert float(other["seconds_per_image"]) == pytest.approx(1.6)
    assert float(other["seconds_per_image_ci95_half"]) == pytest.approx(
        4.30265 * 0.1 / math.sqrt(3), rel=1e-5
    )
    assert float(other["images_per_s"]) == pytest.approx(0.625)
    assert (other["starts"], other["batch_size"]) == ("1", "2")
    assert other["joules_per_image"] == other["seconds_per_image_spread"] == ""


def test_the_wider_of_both_intervals_counts(runs):
    # Starts with equal means whose iterations scatter: the spread between starts alone would be nothing.
    same = [{"seconds": (6.0, 10.0)}, {"seconds": (7.0, 9.0)}]
    found = [save(runs / f"same-{n}", **one) for n, one in enumerate(same)]
    from mlenergy.diffusion.results.collect import collect

    (set_up,) = pool(collect([str(one) for one in found]).results)
    # An image: s = 0.707107 and 0.353553 of two iterations each; sqrt(0.25 + 0.0625) / 2 x t(0.975, 2)
    assert set_up.seconds.half_width == pytest.approx(4.30265 * math.sqrt(0.3125) / 2, rel=1e-5)
    assert set_up.seconds.spread == 0


def test_one_start_has_the_interval_of_its_result(show, tmp_path):
    content = result(seconds=(8.0, 8.4, 9.1))
    save(tmp_path / "run", content)
    (row,) = json.loads(show("run", "--json"))["set_ups"]
    summary = content["statistics"]["time_per_image_s"]
    assert row["seconds_per_image_ci95_half"] == pytest.approx(summary["ci95_half_width"])
    assert row["seconds_per_image"] == pytest.approx(content["avg_time_per_image"])
    assert row["images_per_s"] == pytest.approx(content["throughput_images_per_sec"])
    assert row["peak_memory_gb"] == content["peak_memory_gb"]


def test_other_versions_and_hardware_are_other_rows(show, tmp_path):
    old = {**ENVIRONMENT, "versions": {**ENVIRONMENT["versions"], "torch": "2.12.0"}}
    save(tmp_path / "a")
    save(tmp_path / "b", environment=old)
    save(tmp_path / "c", device_name="NVIDIA A100", seconds=(1.0, 1.0))
    text = show(".")
    assert text.splitlines()[0].startswith(
        "3 results of 3 set-ups: black-forest-labs/FLUX.1-dev, xdit, bfloat16"
    )
    assert "NVIDIA A100, torch 2.13.0" in text
    assert "NVIDIA H200, torch 2.12.0" in text


def test_starts_on_other_hosts_are_repeats_and_said(show, tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b", environment={**ENVIRONMENT, "nodes": [{**NODE, "hostname": "node-z"}]})
    text = show(".")
    assert "the starts of 1 of 1 set-ups ran on different hosts" in text
    assert text.splitlines()[2].split()[-1] == "2"


def test_the_table_of_a_terminal_at_80_columns(show, runs, golden, monkeypatch):
    save(
        runs / "hot",
        seconds=(8.0, 8.0),
        batch_size=8,
        warnings=[("throttle", "held down for heat in 2 windows")],
    )
    save(runs / "cpu", on_cpu=True, seconds=(1.5,), peak_bytes=None)
    save(runs / "torn", "{")
    monkeypatch.setenv("COLUMNS", "80")
    golden("show_80.txt", show("runs"))
    monkeypatch.setenv("COLUMNS", "120")
    golden("show_120.txt", show("runs"))
    golden("show.md", show("runs", "--markdown"))


def test_a_doubtful_number_is_marked_and_its_note_says_why(show, tmp_path):
    save(
        tmp_path / "a",
        joules=(10.0, 10.0),
        warnings=[
            *(("power_mismatch", "differ by 9 %"), ("power_cap", "capped")),
            ("period_widened", "sampled every 0.4 s"),
        ],
    )
    save(
        tmp_path / "b",
        batch_size=2,
        joules=(9.0, 9.0),
        warnings=[("drift", "slower"), ("a_later_code", "odd")],
    )
    save(tmp_path / "c", batch_size=8, joules=(9.0, 9.0), warnings=[("above_device_memory", "too much")])
    lines = show(".", "--sort", "batch").splitlines()
    two, four, eight = (re.split(r"  +", line.strip()) for line in lines[2:5])
    assert [bool(re.search(r"\[1,2\]", cell)) for cell in two[:4]] == [True, True, False, True]
    assert two[2].endswith("[2]"), "a code that is not known puts every number in doubt"
    assert [("[" in cell) for cell in four[:4]] == [False, True, False, False]
    assert [("[" in cell) for cell in eight[:4]] == [False, False, True, False]
    notes = [line.split(maxsplit=1) for line in lines if line.startswith("  [")]
    assert notes[0] == ["[1]", "drift: slower"]
    assert notes[1] == ["[2]", "a_later_code: odd"]
    assert {note for _, note in notes[2:]} == {
        "power_mismatch: differ by 9 %",
        "above_device_memory: too much",
    }


def test_every_documented_warning_has_its_place():
    text = (DOCS / "measuring.md").read_text().partition("## Warnings")[2].partition("\n## ")[0]
    more = (DOCS / "results.md").read_text().partition("### warnings")[2].partition("\n### ")[0]
    codes = set(re.findall(r"^\| `(\w+)` \|", text + more, re.MULTILINE))
    assert len(codes) > 15
    assert codes <= set(DOUBTFUL)
    assert all(DOUBTFUL[code] for code in plausibility.DOUBTFUL), (
        "unfit for a comparison, so some number is marked"
    )


def test_unknown_is_a_dash_with_its_reason(show, tmp_path):
    save(tmp_path / "a", on_cpu=True, seconds=(1.5,), peak_bytes=None)
    lines = show("a").splitlines()
    assert lines[2].split() == ["0.75", "±", "–", "–", "–", "1.333", "1"]
    assert "  – joules       no GPU takes part: the run is on the CPU" in lines
    assert "  – memory       the CPU's allocator keeps no peak" in lines
    assert any(line.startswith("  – interval     one value has no spread") for line in lines)
    (row,) = rows_of(show("a", "--csv"))
    assert (row["joules_per_image"], row["peak_memory_gb"], row["seconds_per_image_ci95_half"]) == (
        "",
        "",
        "",
    )


def test_a_start_without_joules_leaves_none_for_its_set_up(show, tmp_path):
    save(tmp_path / "a", joules=(10.0, 10.0))
    save(tmp_path / "b", joules=None, peak_bytes=None)
    (row,) = json.loads(show(".", "--json"))["set_ups"]
    assert (row["starts"], row["joules_per_image"], row["peak_memory_gb"]) == (2, None, None)
    assert row["reasons"]["joules"] == "no GPU takes part: the run is on the CPU"


def test_order_filters_columns_and_limit(show, runs):
    def column(name, *argv):
        return [row[name] for row in rows_of(show("runs", "--csv", "--columns", name, *argv))]

    assert column("batch_size") == ["2", "4"]
    assert column("batch_size", "--reverse") == ["4", "2"]
    assert column("batch_size", "--sort", "joules") == ["4", "2"], "what is not known comes last"
    assert column("batch_size", "--sort", "joules", "--reverse") == ["4", "2"]
    assert column("batch_size", "--filter", "batch > 2") == ["4"]
    assert column("batch_size", "--filter", "batch != 4") == ["2"]
    assert column("batch_size", "--filter", "model = *FLUX*", "--filter", "ulysses=2") == ["2", "4"]
    assert column("batch_size", "--filter", "joules < 2000") == ["4"], "unknown is neither more nor less"
    assert column("batch_size", "--limit", "1") == ["2"]
    assert (
        rows_of(show("runs", "--csv", "--columns", "dtype, torch,attention"))
        == [{"dtype": "bfloat16", "torch": "2.13.0", "attention": "auto"}] * 2
    )
    save(runs / "sixteen", batch_size=16, seconds=(1.0, 1.0))
    assert column("batch_size", "--sort", "batch") == ["2", "4", "16"], "by number, not by text"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["absent"], "there is no 'absent'; name a result folder"),
        (["none*"], "there is no 'none*'; name a result folder"),
        (["empty"], "there is no result in empty; name a folder that has a results.json at any depth"),
        (["torn"], "there is no complete result in torn: torn/results.json is broken: not whole JSON"),
        (["later"], "later/results.json is newer: has schema version 7, this program reads up to 2"),
        (["runs", "--sort", "secnds"], "--sort: there is no column 'secnds'; did you mean seconds?"),
        (["runs", "--columns", "x,y"], "--columns: there is no column 'x'"),
        (["runs", "--columns", ","], "--columns needs a column"),
        (["runs", "--filter", "batch"], "--filter: cannot read 'batch'; write a column, one of"),
        (["runs", "--filter", "batch = 99"], "none of 2 set-ups meets batch = 99; change --filter"),
        (["runs", "--csv", "--json"], "--csv, --markdown and --json exclude each other"),
        (["runs", "--limit", "0"], "--limit: '0' is not a whole number of 1 or more"),
        ([], "required: PATH"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(runs, tmp_path, monkeypatch, argv, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "torn", "{")
    save(tmp_path / "later", {**result(), "schema_version": 7})
    with pytest.raises(UserError) as error:
        main(argv)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_result_is_named_beside_the_table(show, runs):
    for number in range(7):
        save(runs / f"torn-{number}", "{")
    text = show("runs")
    assert len(re.findall(r"^  broken +runs/torn-", text, re.MULTILINE)) == 5
    assert "and 2 more that are no complete result (--json)" in text
    assert len(json.loads(show("runs", "--json"))["not_shown"]) == 7


def test_a_result_without_its_images_is_shown_and_said(show, tmp_path):
    save(tmp_path / "a", images=True)
    assert "of 1 results some images are not in their folder" in show("a")


def test_results_of_different_versions_stand_in_one_table(show, runs, tmp_path):
    old = {"model_id": "org/old", "completed": 4, "generation_time": 2.0}
    save(runs / "old-1", old)
    save(runs / "old-2", old)
    rows = rows_of(show("runs", "--csv"))
    assert [(row["model_id"], row["starts"]) for row in rows].count(("org/old", "1")) == 2, (
        "no repeats: too little known"
    )
    assert "not in this result" in show("runs")


def test_huge_and_hostile_texts_stay_text(show, tmp_path):
    content = result(negative_prompt="x" * 3_000_000)
    content["model_id"] = "a|b\n\x1b[31m<script>[bold]"
    save(tmp_path / "a", content)
    save(tmp_path / "b", batch_size=2)
    for form in ((), ("--markdown",)):
        text = show(".", *form)
        assert "\x1b" not in text
        assert len(text) < 5000
    assert "a\\|b\\n\\x1b[31m&lt;script>" in show(".", "--markdown")
    assert "a|b\\n\\x1b[31m<script>[bold]" in show(".")


def test_a_file_named_twice_counts_once(show, runs):
    assert show("runs", "runs/one", "runs/one/results.json", "--csv") == show("runs", "--csv")


def test_the_index_gives_the_same_table(show, runs, monkeypatch):
    before = show("runs", "--json")
    refresh(runs)
    import os

    for file in runs.glob("*/results.json"):
        os.utime(file, ns=(10**18, 10**18))
    monkeypatch.setattr("mlenergy.diffusion.results.index._YOUNG_NS", 0)
    refresh(runs)
    read = []
    load = __import__("mlenergy.diffusion.results.collect", fromlist=["x"]).load_result
    monkeypatch.setattr(
        "mlenergy.diffusion.results.collect.load_result", lambda *a: read.append(a) or load(*a)
    )
    assert show("runs", "--json") == before
    assert read == [], "what is in the index is not read again"
    save(runs / "other", seconds=(1.0, 1.0), batch_size=2)
    assert rows_of(show("runs", "--csv"))[0]["seconds_per_image"] == "0.5"
    assert len(read) == 1


def test_the_real_command_is_light_and_prints_every_form(runs):
    heavy = ["torch", "xfuser", "diffusers", "pyarrow", "scipy.stats", "pandas"]
    program = (
        "import sys; sys.argv = ['mlenergy', 'show', sys.argv[1]]\n"
        "from mlenergy.diffusion.cli import main\ncode = main()\n"
        f"assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(runs)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 results of 2 set-ups: ")
    lines = subprocess.run(
        [MLENERGY, "show", runs, "--markdown"], capture_output=True, text=True, check=True
    ).stdout
    assert lines.startswith("| s/image | J/image | GB | images/s | starts | batch_size | benchmark_iters |\n")
    mistake = subprocess.run([MLENERGY, "show", "absent"], capture_output=True, text=True, check=False)
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr.startswith("mlenergy: error: there is no 'absent'; ")
    assert mistake.stderr.count("\n") == 1


def test_a_record_needs_no_more_than_its_place():
    record = ResultRecord(folder=".", file="", state="unreadable", reason="x")
    assert (record.path, record.warnings) == (".", [])
