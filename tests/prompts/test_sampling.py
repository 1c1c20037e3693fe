"""Requests are the same everywhere, cover the set, and say where they are from."""

import hashlib
import json
import subprocess
import sys

import pytest

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts import sources
from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests

BUNDLED = PromptOptions("bundled")


def test_the_bundled_set_is_large_varied_and_categorised():
    pool = sources.load_pool("bundled")
    assert len(pool.prompts) >= 128
    assert len(set(pool.prompts)) == len(pool.prompts)
    assert len({prompt.split()[0:3].__str__() for prompt in pool.prompts}) > 100
    assert len(set(pool.categories)) >= 10
    assert None not in pool.categories
    assert min(len(prompt) for prompt in pool.prompts) > 100


def test_requests_do_not_change_between_versions_of_python_and_machines():
    """The digest is a constant: who changes the algorithm or the bundled set changes every user's images."""
    requests = sample_requests(BUNDLED, 300, seed=42, warmup_count=3)
    text = json.dumps([[r.prompt, r.seed, r.category] for r in requests.requests + requests.warmup_requests])
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "1ca30c4f06d92d833ee53b2b42d1fb6d4a28e0a6f771317ac45d1f13bcff244b"
    )


def test_the_random_state_of_the_process_and_its_hash_seed_do_not_matter():
    code = (
        "import random; random.seed(7)\n"
        "from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests\n"
        "print([r.prompt for r in sample_requests(PromptOptions('bundled'), 9, 1).requests])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_no_prompt_comes_twice_before_all_have_come_once():
    pool = sources.load_pool("bundled")
    size = len(pool.prompts)
    prompts = [r.prompt for r in sample_requests(BUNDLED, 2 * size + 5, seed=3).requests]
    assert sorted(prompts[:size]) == sorted(prompts[size : 2 * size]) == sorted(pool.prompts)
    assert prompts[:size] != prompts[size : 2 * size], "the second round is shuffled anew"
    assert prompts[:size] != list(pool.prompts)


def test_a_small_count_is_the_beginning_of_a_large_one():
    few, many = (sample_requests(BUNDLED, count, seed=5).requests for count in (4, 200))
    assert many[:4] == few


def test_warm_up_is_a_stream_of_its_own():
    without, with_three, with_many = (sample_requests(BUNDLED, 8, 42, warmup_count=n) for n in (0, 3, 50))
    assert without.requests == with_three.requests == with_many.requests
    assert with_many.warmup_requests[:3] == with_three.warmup_requests
    assert without.warmup_requests == ()
    assert [r.prompt for r in with_many.warmup_requests[:8]] != [r.prompt for r in without.requests]


def test_another_seed_gives_other_prompts_and_image_i_gets_seed_plus_i():
    one, two = (sample_requests(BUNDLED, 6, seed).requests for seed in (10, 11))
    assert [r.seed for r in one] == [10, 11, 12, 13, 14, 15]
    assert [r.index for r in one] == [0, 1, 2, 3, 4, 5]
    assert [r.prompt for r in one] != [r.prompt for r in two]


@pytest.mark.parametrize(("prefix", "start"), [("best quality,", "best quality, "), ("a\n", "a\n"), ("", "")])
def test_the_prefix_stands_before_every_prompt(prefix, start):
    plain = sample_requests(BUNDLED, 5, 1).requests
    prefixed = sample_requests(PromptOptions("bundled", prefix=prefix), 5, 1).requests
    assert [r.prompt for r in prefixed] == [start + r.prompt for r in plain]


def test_provenance_tells_how_to_draw_the_same_again():
    options = PromptOptions("bundled", prefix="oil painting,")
    provenance = sample_requests(options, 1, 42).provenance
    assert provenance["source"] == provenance["dataset"] == "bundled"
    assert (provenance["seed"], provenance["prompt_prefix"]) == (42, "oil painting,")
    assert len(provenance["prompts_sha256"]) == 64
    assert provenance["prompts_in_set"] == len(sources.load_pool("bundled").prompts)
    assert "MT19937" in provenance["algorithm"]


def test_the_bundled_set_lists_its_columns():
    with pytest.raises(UserError, match=r"no column 'caption'.*category, prompt"):
        sample_requests(PromptOptions("bundled", "caption"), 1, 1)


def test_no_images_are_refused():
    with pytest.raises(UserError, match="0 images"):
        sample_requests(BUNDLED, 0, 1)


@pytest.mark.parametrize(
    ("dataset", "parts"),
    [
        (
            "open-image-preferences",
            ("data-is-better-together/open-image-preferences-v1", None, "cleaned", None),
        ),
        ("org/name", ("org/name", None, None, None)),
        ("org/name/conf:test@v1.0", ("org/name", "conf", "test", "v1.0")),
        ("org/name@refs/pr/3", ("org/name", None, None, "refs/pr/3")),
    ],
)
def test_hub_ids_may_name_configuration_split_and_revision(dataset, parts):
    source = sources.parse_hub_dataset(dataset)
    assert (source.dataset_id, source.configuration, source.split, source.revision) == parts


@pytest.mark.parametrize("dataset", ["", "parti", "a b/c", "org/name:"])
def test_a_name_that_is_nothing_is_refused(dataset):
    sets = "bundled, bundled-videos, open-image-preferences, evalcrafter"
    with pytest.raises(UserError, match=f"use {sets}, a path, or a hub id"):
        sources.load_pool(dataset) if dataset else sources.parse_hub_dataset(dataset)


@pytest.fixture
def ten_prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"prompt {i}\n" for i in range(10)))
    return str(file)


def test_the_files_own_order_takes_each_prompt_once(ten_prompts):
    options = PromptOptions(ten_prompts, order="file")
    found = sample_requests(options, 10, seed=3, warmup_count=12)
    assert [r.prompt for r in found.requests] == [f"prompt {i}" for i in range(10)]
    assert [r.seed for r in found.requests] == [*range(3, 13)]
    # The warm-up measures nothing, so it may take prompts that are measured later, and some of them twice.
    assert [r.prompt for r in found.warmup_requests] == [f"prompt {i % 10}" for i in range(12)]
    assert sample_requests(options, 4, seed=3).requests == found.requests[:4]
    assert found.provenance["prompt_order"] == "file"
    assert "own order" in found.provenance["algorithm"] and "MT19937" not in found.provenance["algorithm"]


def test_the_files_own_order_refuses_a_set_that_is_too_small(ten_prompts):
    with pytest.raises(UserError, match=r"takes each prompt once, and .* has 10 for 11 images") as error:
        sample_requests(PromptOptions(ten_prompts, order="file"), 11, 1)
    assert "\n" not in str(error.value)


def test_the_order_is_shuffled_unless_asked_otherwise(ten_prompts):
    found = sample_requests(PromptOptions(ten_prompts), 25, seed=1)
    prompts = [r.prompt for r in found.requests]
    assert prompts[:10] != [f"prompt {i}" for i in range(10)]
    assert sorted(prompts[:10]) == sorted(prompts[10:20]) == [f"prompt {i}" for i in range(10)]
    assert found.provenance["prompt_order"] == "shuffled"


def test_a_plans_order_reaches_the_sample():
    words = ["--workload.model_id", "tiny/flux", "--workload.dataset", "bundled", "--workload.prompt_order"]
    for order in ("file", "shuffled"):
        _, plan = plan_from([*words, order, "--device", "cpu"], None, "x")
        assert PromptOptions.from_plan(plan).order == order
