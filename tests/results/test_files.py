"""Files are whole or absent: torn writes, full disks, read-only folders, NaN, images that are missing."""

import errno
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, prompt_set

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.samples import Timeline
from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests
from mlenergy.diffusion.results import atomic
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.results.save import save_requests, save_result, save_timeline


@pytest.fixture
def finished(tmp_path):
    """A complete run on disk, images as small files."""
    plan = cpu_plan(tmp_path)
    paths, prompts = RunPaths.of(plan), prompt_set(plan)
    files = [paths.image(r.index, r.prompt) for r in prompts.requests]
    paths.images.mkdir(parents=True)
    for file in files:
        file.write_bytes(b"png")
    names = [paths.relative(file) for file in files]
    save_requests(paths, prompts)
    save_result(paths, build_result(RunRecord(plan, cpu_measurement(), prompts, ENVIRONMENT), names))
    return paths


def change(paths, **values):
    """Rewrite results.json with other values; ... removes a key."""
    result = {**json.loads(paths.results.read_text()), **values}
    paths.results.write_text(json.dumps({k: v for k, v in result.items() if v is not ...}))


def test_a_whole_result_is_complete(finished):
    assert is_complete(finished)
    assert [p.name for p in finished.folder.iterdir() if p.name.startswith(".")] == []


def test_an_absent_result_is_not_complete(tmp_path):
    assert not is_complete(RunPaths.of(cpu_plan(tmp_path)))
    (tmp_path / "file").write_text("")
    assert not is_complete(RunPaths.of(cpu_plan(tmp_path / "file")))


def test_no_beginning_of_the_file_counts_as_complete(finished):
    content = finished.results.read_bytes().rstrip()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        finished.results.write_bytes(content[:length])
        assert not is_complete(finished), length


@pytest.mark.parametrize(
    "values",
    [{"completed": 0}, {"completed": 3}, {"prompts": []}, {"generation_results": []}, {"configuration": ...}],
)
def test_a_result_that_contradicts_itself_is_not_complete(finished, values):
    change(finished, **values)
    assert not is_complete(finished)


@pytest.mark.parametrize("other", ["[]", "7", "null", '{"schema_version": 1}'])
def test_other_json_is_not_complete(finished, other):
    finished.results.write_text(other)
    assert not is_complete(finished)


def test_a_missing_or_empty_image_makes_a_result_incomplete(finished):
    image = sorted(finished.images.iterdir())[1]
    image.write_bytes(b"")
    assert not is_complete(finished)
    image.unlink()
    assert not is_complete(finished)


def test_a_result_without_images_is_complete_when_none_were_asked_for(finished):
    results = json.loads(finished.results.read_text())["generation_results"]
    change(finished, generation_results=[{**image, "image": None} for image in results])
    clear = finished.images
    for image in clear.iterdir():
        image.unlink()
    assert is_complete(finished)


def test_a_newer_result_is_never_taken_for_an_old_one_nor_silently_replaced(finished):
    change(finished, schema_version=3)
    written = "schema version 3, this program writes 2 and older; add --overwrite_results"
    with pytest.raises(UserError, match=written):
        is_complete(finished)


def test_requests_keep_every_character(tmp_path):
    prompts = ("a/b", "two\nlines", "🐉", "\x1b[31mred\x07", "x" * 5000, "\u2028 a separator", 'quo"te\\')
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(prompts))
    drawn = sample_requests(PromptOptions(str(file)), len(prompts), 1, warmup_count=1)
    paths = RunPaths.of(cpu_plan(tmp_path))
    save_requests(paths, drawn)
    assert paths.requests.read_bytes().isascii()
    assert b"\x1b" not in paths.requests.read_bytes()
    stored = json.loads(paths.requests.read_text())
    assert sorted(r["prompt"] for r in stored["requests"]) == sorted(prompts)
    assert [r["seed"] for r in stored["requests"]] == list(range(1, 8))
    assert len(stored["warmup_requests"]) == 1
    assert stored["provenance"]["prompts_in_set"] == 7


def test_nan_is_refused_with_its_place_and_nothing_is_written(tmp_path):
    for value, place in (
        ({"a": [1.0, {"b": float("nan")}]}, r"r.json.a\[1\].b is nan"),
        (float("inf"), "r.json is inf"),
    ):
        with pytest.raises(ValueError, match=place):
            write_json(tmp_path / "r.json", value)
    assert list(tmp_path.iterdir()) == []


def test_the_timeline_keeps_its_columns_and_period(tmp_path):
    paths = RunPaths.of(cpu_plan(tmp_path))
    line = Timeline(
        ["n"] * 2, ["GPU-a"] * 2, [0.0, 0.1], [300.0, None], [50, 51], [1980, 1980], [0, 4], [None, 0], 0.1
    )
    save_timeline(paths, line)
    table = pq.read_table(paths.timeline)
    assert table["power_w"].to_pylist() == [300.0, None]
    assert table["window"].to_pylist() == [None, 0]
    assert float(table.schema.metadata[b"period_s"]) == 0.1


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    write_json(file, {"old": True})

    def power_cut(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "force_to_disk", power_cut)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, {"new": True})
    assert json.loads(file.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_file_that_may_not_grow_is_one_line_and_leaves_no_rest(tmp_path):
    """A real failed write: the kernel refuses to let the file grow beyond 4 KiB."""
    code = f"""
import pathlib, resource, signal
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_json(pathlib.Path({str(tmp_path)!r}) / "results.json", ["x" * 100] * 1000)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        f"cannot write {tmp_path}/results.json: File too large; free space, or choose"
    )
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_that_says_so(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "force_to_disk", full)
    with pytest.raises(
        UserError, match=r"No space left on device; free space, or choose another --workload.base_dir"
    ):
        write_json(tmp_path / "results.json", {})
    assert list(tmp_path.iterdir()) == []
