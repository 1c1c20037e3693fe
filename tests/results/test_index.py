"""The index has a row for every file, reads only what changed, and other programs read it as it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from result_folders import result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results import index
from mlenergy.diffusion.results.index import refresh

MLENERGY = Path(sys.executable).with_name("mlenergy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two results, a torn one, and a failed run; all of them older than the clock's tick."""
    monkeypatch.setattr(index, "_YOUNG_NS", 0)
    save(tmp_path / "a", seconds=(8.0, 8.4), joules=(5000.0, 5400.0))
    save(tmp_path / "b", seconds=(4.0, 4.0))
    save(tmp_path / "torn", '{"completed": 3')
    save(tmp_path / "failed", '{"state": "failed", "message": "out of memory"}', "status.json")
    return tmp_path


def rows(root, column="state"):
    import pyarrow.parquet as pq

    table = pq.read_table(root / "index.parquet")
    return dict(zip(table["folder"].to_pylist(), table[column].to_pylist(), strict=True))


@pytest.fixture
def read(monkeypatch):
    """The folders whose files were read."""
    known = []
    load = index.load_found

    def counted(root, found):
        if found.state is None:
            known.append(found.folder)
        return load(root, found)

    monkeypatch.setattr(index, "load_found", counted)
    return known


def test_every_file_is_a_row(folder):
    done = refresh(folder)
    assert rows(folder) == {"a": "complete", "b": "complete", "torn": "broken", "failed": "failed"}
    assert rows(folder, "time_per_image_mean_s") == {"a": 2.05, "b": 1.0, "torn": None, "failed": None}
    assert rows(folder, "energy_per_image_mean_j") == {"a": 1300.0, "b": None, "torn": None, "failed": None}
    assert (done.new, done.read_again, done.removed) == (4, 0, 0)
    assert dict(done.states) == {"complete": 2, "broken": 1, "failed": 1}
    assert [(state, path) for state, path, _ in done.unusable] == [
        ("failed", "failed/status.json"),
        ("broken", "torn/results.json"),
    ]


def test_only_what_changed_is_read(folder, read):
    refresh(folder)
    read.clear()
    before = (folder / "index.parquet").stat().st_mtime_ns
    done = refresh(folder)
    assert (read, done.new, done.read_again, done.removed) == ([], 0, 0, 0)
    assert dict(done.states) == {"complete": 2, "broken": 1, "failed": 1}
    assert len(done.unusable) == 2, "what is no result is listed each time"
    assert (folder / "index.parquet").stat().st_mtime_ns == before, "nothing changed, so nothing is written"

    save(folder / "new", seconds=(2.0, 2.0))
    save(folder / "torn", seconds=(3.0, 3.0))  # whole by now
    (folder / "b" / "results.json").unlink()
    done = refresh(folder)
    assert sorted(read) == ["new", "torn"]
    assert (done.new, done.read_again, done.removed) == (1, 1, 1)
    assert rows(folder) == {"a": "complete", "new": "complete", "torn": "complete", "failed": "failed"}
    assert rows(folder, "time_per_image_mean_s")["torn"] == 0.75


def test_a_file_of_equal_size_and_time_that_was_replaced_is_read_again(folder, read):
    refresh(folder)
    file = folder / "b" / "results.json"
    stat, text = file.stat(), file.read_text()
    file.write_text(text.replace('"FluxPipeline"', '"FluxPipelinX"'))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    read.clear()
    refresh(folder)
    assert read == ["b"]
    assert rows(folder, "pipeline_class")["b"] == "FluxPipelinX"


def test_a_file_as_young_as_the_clocks_tick_is_read_again(folder, read, monkeypatch):
    monkeypatch.setattr(index, "_YOUNG_NS", 10**15)
    refresh(folder)
    read.clear()
    assert refresh(folder).read_again == 4
    assert sorted(read) == ["a", "b", "failed", "torn"]


def test_many_rows_pass_in_groups(folder, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(index, "_GROUP", 2)
    for number in range(5):
        save(folder / f"more-{number}", "{}")
    refresh(folder)
    save(folder / "one-more", "{}")
    (folder / "a" / "results.json").unlink()
    done = refresh(folder)
    assert (done.new, done.removed) == (1, 1)
    assert set(rows(folder)) == {"b", "torn", "failed", "one-more", *(f"more-{n}" for n in range(5))}
    assert pq.ParquetFile(folder / "index.parquet").num_row_groups < 7


def test_an_index_of_another_version_is_made_anew(folder, read):
    import pyarrow.parquet as pq

    refresh(folder)
    file = folder / "index.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["seed"]), file)
    read.clear()
    assert refresh(folder).new == 4
    assert len(read) == 4
    assert rows(folder, "seed")["a"] == 42


@pytest.mark.parametrize("content", [b"", b"not a table", b"PAR1"])
def test_a_file_of_the_users_is_never_replaced(folder, content):
    file = folder / "index.parquet"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not an index of this program; remove it, or choose another"):
        refresh(folder)
    assert file.read_bytes() == content


def test_a_table_of_another_program_is_never_replaced(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), folder / "index.parquet")
    with pytest.raises(UserError, match="is not an index of this program"):
        refresh(folder)


def test_the_columns_are_the_records_fields_with_their_types():
    kinds = {one.name: str(one.type) for one in index.schema()}
    assert kinds["time_per_image_mean_s"] == kinds["guidance_scale"] == "double"
    assert kinds["images_count"] == kinds["seed"] == kinds["source_mtime_ns"] == "int64"
    assert kinds["parallel_vae"] == "bool"
    assert kinds["folder"] == kinds["state"] == kinds["reason"] == kinds["settings_json"] == "string"
    figures = [name for name, kind in kinds.items() if kind == "double"]
    units = r"_(s|j|w|gb|gpu)$"
    without = [
        "guidance_scale",
        "real_time_factor",
        "mfu",
        "fid",
        "kid",
        "clip_score",
        "lpips",
        "ssim",
        "psnr_db",
    ]
    assert [name for name in figures if not re.search(units, name)] == without


def test_pandas_polars_and_duckdb_read_it_as_it_is(folder):
    import duckdb
    import pandas
    import polars

    refresh(folder)
    file = folder / "index.parquet"
    by_pandas = pandas.read_parquet(file).set_index("folder")
    assert by_pandas.loc["a", "energy_per_image_mean_j"] == 1300.0
    assert pandas.isna(by_pandas.loc["b", "energy_per_image_mean_j"])
    by_polars = polars.read_parquet(file).filter(polars.col("state") == "complete").sort("folder")
    assert by_polars["time_per_image_mean_s"].to_list() == [2.05, 1.0]
    query = f"select folder, seed from '{file}' where energy_per_image_mean_j > 1000"
    assert duckdb.sql(query).fetchall() == [("a", 42)]


def test_odd_text_is_stored_as_it_is(folder):
    save(folder / "model", {**result(), "model_id": "=1+1\n|x|"})
    refresh(folder)
    assert rows(folder, "model_id")["model"] == "=1+1\n|x|"


def mlenergy(*argv, **more):
    done = subprocess.run([MLENERGY, *map(str, argv)], capture_output=True, text=True, check=False, **more)
    return done.returncode, done.stdout, done.stderr


def test_the_verb_makes_the_index_and_lists_what_is_no_result(folder):
    code, text, error = mlenergy("index", folder)
    assert (code, error) == (0, "")
    assert text.splitlines()[0] == f"{folder}/index.parquet: 2 results (4 new)"
    assert re.search(r"failed +failed/status.json: out of memory", text)
    assert re.search(r"broken +torn/results.json: not whole JSON: ", text)
    save(folder / "odd", '{"state": "failed", "message": "a\\u001b[31m"}', "status.json")
    assert r"a\x1b[31m" in mlenergy("index", folder)[1], "no text acts on a terminal"
    (folder / "empty").mkdir()
    code, text, _ = mlenergy("index", folder / "empty", "--out", folder / "of-empty.parquet")
    assert (code, text) == (0, f"{folder}/of-empty.parquet: 0 results (nothing changed)\n")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["absent"], "there is no folder absent; name one that holds results"),
        ([], "required: DIR; see mlenergy index --help"),
        ([".", "--out", "absent/x"], "cannot write absent/x: No such file"),
    ],
)
def test_a_mistake_is_one_line(folder, argv, sentence):
    if "absent/x" in argv:
        (folder / "absent").write_text("a file")
        sentence = "cannot write absent/x: File exists; choose another file with --out"
    code, text, error = mlenergy("index", *argv, cwd=folder)
    assert (code, text) == (2, "")
    assert error == f"mlenergy: error: {sentence}\n"
