"""When a result counts as complete: each key and file on its own."""

from __future__ import annotations

import json

import pytest
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, prompt_set

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete, is_whole, read_result
from mlenergy.diffusion.results.save import accept_no_effect, found_effects, pending_effects, save_result
from mlenergy.diffusion.results.units import SCHEMA_VERSIONS

RANK = {"rank": 0, "attention": {"kernels": None, "reason": "not seen"}}  # one rank's effects


@pytest.fixture
def whole(tmp_path):
    """A whole result on disk, with its images."""
    plan = cpu_plan(tmp_path)
    paths, prompts = RunPaths.of(plan), prompt_set(plan)
    names = [paths.relative(paths.image(r.index, r.prompt)) for r in prompts.requests]
    paths.images.mkdir(parents=True)
    for name in names:
        (paths.folder / name).write_bytes(b"png")
    save_result(paths, build_result(RunRecord(plan, cpu_measurement(), prompts, ENVIRONMENT), names))
    return paths


def change(paths, **values):
    paths.results.write_text(json.dumps({**json.loads(paths.results.read_text()), **values}))


def test_only_known_effects_make_a_result_complete(whole):
    assert is_complete(whole)
    change(whole, **pending_effects(True))
    assert not is_complete(whole) and is_whole(whole, read_result(whole.results))
    change(whole, **pending_effects(False))
    assert is_complete(whole)
    change(whole, **found_effects([RANK], ["the cache skipped no step"]))
    assert not is_complete(whole)
    change(whole, **found_effects([RANK], []))
    assert is_complete(whole) and read_result(whole.results)["effects"] == [RANK]


def test_lines_without_effect_become_warnings_where_that_is_accepted(whole):
    lines = ["the cache skipped no step", "nothing was compiled"]
    before = read_result(whole.results)["warnings"]
    assert not accept_no_effect(whole), "there is nothing to accept"
    change(whole, **found_effects([RANK], lines))
    assert accept_no_effect(whole) and is_complete(whole)
    result = read_result(whole.results)
    assert result["effects_failed"] == []
    assert result["warnings"] == [*before, *({"code": "no_effect", "message": line} for line in lines)]


def test_what_is_not_whole_is_not_accepted(whole):
    change(whole, **found_effects([RANK], ["a line"]))
    next(whole.images.iterdir()).unlink()
    assert not accept_no_effect(whole)
    assert read_result(whole.results)["effects_failed"] == ["a line"]


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("how", ["missing", "empty", "folder"])
def test_each_image_has_to_be_there(whole, place, how):
    image = sorted(whole.images.iterdir())[place]
    image.unlink()
    if how == "empty":
        image.write_bytes(b"")
    elif how == "folder":
        image.mkdir()
    assert not is_complete(whole)


@pytest.mark.parametrize("key", ["prompts", "generation_results"])
@pytest.mark.parametrize("more", [True, False])
def test_one_entry_too_many_or_too_few_is_a_contradiction(whole, key, more):
    values = read_result(whole.results)[key]
    change(whole, **{key: [*values, values[0]] if more else values[:-1]})
    assert not is_complete(whole)


@pytest.mark.parametrize("version", [SCHEMA_VERSIONS[-1] + 1, SCHEMA_VERSIONS[0] - 1])
def test_another_schema_is_never_read_as_this_one(whole, version):
    change(whole, schema_version=version)
    newest = SCHEMA_VERSIONS[-1]
    with pytest.raises(
        UserError, match=f"has schema version {version}, this program writes {newest} and older;"
    ):
        read_result(whole.results)


@pytest.mark.parametrize(
    "key", ["schema_version", "completed", "generation_time", "prompts", "configuration"]
)
def test_a_result_of_another_program_is_none(whole, key):
    result = json.loads(whole.results.read_text())
    del result[key]
    whole.results.write_text(json.dumps(result))
    assert read_result(whole.results) is None


def test_a_folder_in_the_place_of_the_file_is_told(whole):
    whole.results.unlink()
    whole.results.mkdir()
    with pytest.raises(UserError, match=r"cannot read .*make it readable or move it"):
        read_result(whole.results)
