"""Digests of results, what they notice, and what is done with a folder that holds no whole result."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, prompt_set

from mlenergy.diffusion.cli import VERBS
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.aside import keep_broken, keep_interrupted
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.digest import content_digest, is_as_written
from mlenergy.diffusion.results.lock import result_lock
from mlenergy.diffusion.results.media import output_names
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.results.save import (
    accept_no_effect,
    found_effects,
    save_effects_reason,
    save_result,
    save_run,
)
from mlenergy.diffusion.results.verify import differences


@pytest.fixture
def finished(tmp_path):
    """A run of four images with all its files."""
    import numpy as np

    plan = cpu_plan(tmp_path)
    paths = RunPaths.of(plan)
    record = RunRecord(plan, cpu_measurement(), prompt_set(plan), ENVIRONMENT)
    pixels = [np.random.default_rng(k).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8) for k in range(2)]
    result = build_result(record, output_names(paths, record.measured_requests))
    with result_lock(paths.lock):
        digests = save_run(paths, record, pixels, result)
        save_result(paths, {**result, "digests": digests, **found_effects([], [])})
    return paths


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_a_result_as_it_was_written_is_intact(finished):
    assert differences(finished.folder) == []
    assert not finished.interrupted.exists()
    for file in (finished.results, finished.requests):  # written anew by another program: the same content
        file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    assert differences(finished.folder) == []


def test_an_edited_number_is_named_where_others_tell(finished):
    change(finished.results, lambda r: r.update(generation_time=r["generation_time"] / 2))
    found = differences(finished.folder)
    assert found[0] == "results.json was changed after it was written"
    assert found[1] == "generation_time is 2.0, its windows make it 4.0"


def leaves(value, path=()):
    """Paths of all plain values."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for index, one in enumerate(value) for leaf in leaves(one, (*path, index))]
    return [path]


def test_a_change_of_any_value_is_seen(finished):
    result = json.loads(finished.results.read_text())
    for path in random.Random(0).sample(leaves(result), 60):
        copy = json.loads(json.dumps(result))
        place = copy
        for step in path[:-1]:
            place = place[step]
        value = place[path[-1]]
        place[path[-1]] = value + 1e-9 if isinstance(value, float) else "other"
        assert not is_as_written(copy), path


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda p: change(p.requests, lambda r: r["requests"][1].update(seed=7)),
            "requests.json was changed",
        ),
        (lambda p: p.requests.unlink(), "requests.json: No such file"),
        (lambda p: p.requests.write_text('{"requests": ['), "requests.json is cut off"),
        (lambda p: first_image(p).write_bytes(b"other"), "_the_"),
        (lambda p: first_image(p).unlink(), "No such file"),
        (lambda p: p.results.write_bytes(p.results.read_bytes()[:-9]), "results.json is cut off"),
        (lambda p: p.results.unlink(), "results.json is missing"),
        (lambda p: change(p.results, lambda r: r.pop("digests")), "results.json has no digests"),
        (lambda p: change(p.results, lambda r: r["digests"].update(files={})), "results.json was changed"),
    ],
)
def test_every_harm_is_one_named_difference(finished, capsys, harm, said):
    if said == "_the_":
        said = f"image_outputs/{first_image(finished).name} was changed after it was written"
    harm(finished)
    found = differences(finished.folder)
    assert said in found[0] and len(found) == (5 if "changed" in said and "results" in said else 1)
    if finished.results.exists():
        assert VERBS["doctor"].main([str(finished.folder)]) == 1
        assert f"not intact: {finished.folder}: {found[0]}" in capsys.readouterr().out


def first_image(paths):
    return sorted(paths.images.iterdir())[0]


def test_doctor_looks_at_all_results_below_a_folder(finished, capsys):
    assert VERBS["doctor"].main([str(finished.folder.parent)]) == 0
    assert VERBS["doctor"].main([str(finished.results)]) == 0
    assert capsys.readouterr().out.count(f"intact: {finished.folder}\n") == 2
    with pytest.raises(UserError, match=r"holds no results\.json; name a result folder"):
        VERBS["doctor"].main([str(finished.images)])


def test_a_later_change_by_the_program_is_sealed_and_an_edited_number_never_is(finished):
    with result_lock(finished.lock):
        save_effects_reason(finished, "a reason")
        assert differences(finished.folder) == []
        change(finished.results, lambda r: r.update(first_call_s=1.0, effects_failed=["it did nothing"]))
        save_effects_reason(finished, "another reason")
        with pytest.raises(UserError, match="was changed after it was written; --overwrite_results"):
            accept_no_effect(finished)
    assert "results.json was changed after it was written" in differences(finished.folder)


def test_a_result_of_an_earlier_minor_version_stays_without_digests(finished):
    change(finished.results, lambda r: (r.pop("digests"), r.update(schema_minor_version=1)))
    with result_lock(finished.lock):
        save_effects_reason(finished, "a reason")
    assert "digests" not in json.loads(finished.results.read_text())
    assert is_complete(finished)


@given(
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text())
)
def test_the_digest_is_of_the_values_alone(content):
    shuffled = dict(sorted(content.items(), reverse=True))
    assert content_digest(shuffled) == content_digest(json.loads(json.dumps(content, indent=3)))
    assert content_digest({**content, "one more": 0}) != content_digest(content) or "one more" in content


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda p: p.results.write_bytes(p.results.read_bytes()[:-9]), "results.json is cut off"),
        (lambda p: first_image(p).unlink(), "is missing or empty"),
        (lambda p: first_image(p).write_bytes(b""), "is missing or empty"),
    ],
)
def test_what_is_not_whole_is_kept_beside(finished, harm, why):
    with result_lock(finished.lock):
        assert keep_broken(finished) is None
        for number in (1, 2):
            harm(finished) if number == 1 else finished.results.write_text("{")
            before = {file.name for file in finished.folder.iterdir()} - {".lock"}
            said, folder = keep_broken(finished)
            assert why in said if number == 1 else "cut off" in said
            assert folder.name == f"{finished.folder.name}.broken-{number}"
            assert {file.name for file in folder.iterdir()} == {*before, "results_broken.json"} - {
                "results.json"
            }
            assert [file.name for file in finished.folder.iterdir()] == [".lock"]
            assert keep_broken(finished) is None


def test_an_interrupted_runs_numbers_are_never_overwritten(finished):
    assert keep_interrupted(finished) is None
    for number in (1, 2):
        finished.interrupted.write_text(str(number))
        assert keep_interrupted(finished).name == f"results_interrupted-{number}.json"
    assert (finished.folder / "results_interrupted-1.json").read_text() == "1"
