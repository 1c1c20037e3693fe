"""File names: readable, safe, and never the same for two set-ups."""

import itertools
import random
import re
from dataclasses import dataclass, fields, replace

import pytest
from result_samples import make_plan

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.names import KNOWN_DEGREES, KNOWN_FIELDS, folder_name, identity_digest
from mlenergy.diffusion.results.paths import RunPaths, model_slug, prompt_slug

DEV = BY_ID["black-forest-labs/FLUX.1-dev"]
# Names that no short form can tell apart by itself.
ODD_IDS = (
    "black-forest-labs-FLUX.1-dev",
    "black-forest-labs/FLUX_1-dev",
    "a/b-c",
    "a-b/c",
    "/data/" + "m" * 300,
)
CHOICES = {
    "spec": [*BY_ID.values(), *(replace(DEV, model_id=name) for name in ODD_IDS)],
    "revision": [None, "main", "v1/2", "v1_2"],
    "engine": ["xdit", "diffusers"],
    "device": ["cuda", "cpu", "mps"],
    "device_name": [
        "NVIDIA H200",
        "NVIDIA_H200",
        "NVIDIA  H200",
        "Intel(R) Xeon(R) CPU @ 2.1GHz",
        "NVIDIA H100",
        "é",
    ],
    "dtype": ["bfloat16", "float16", "float32"],
    "batch_size": [1, 4, 11, 10**80],
    "height_px": [1024, 512, 1],
    "width_px": [1024, 512, 11],
    "steps": [28, 4],
    "guidance_scale": [None, 3.5, 7.0, 0.1 + 0.2, 0.3],
    "negative_prompt": [None, "", "blurry", "x" * 5000],
    "max_sequence_length": [512, 256, None],
    "seed": [42, 0, 2**63],
    "dataset": [
        "open-image-preferences",
        "bundled",
        "org/name",
        "org_name",
        "org+name",
        "/x/" + "y" * 400,
        "/x/",
    ],
    "prompt_column": ["prompt", "caption", "a b", "a_b"],
    "prompt_prefix": ["", "oil,", "oil, ", "\udcff\n"],
    "warmup_iters": [0, 1, 5],
    "benchmark_iters": [4, 20],
    "save_images": [True, False],
    "prompt_order": ["shuffled", "file"],
}


def some_parallelism(rng):
    degrees = {
        f: rng.choice([1, 1, 2, 4]) for f in ("data", "cfg", "pipefusion", "ring", "ulysses", "tensor")
    }
    more = {"num_pipeline_patch": rng.choice([None, 2, 4]), "pipefusion_warmup_steps": rng.choice([1, 0, 3])}
    return Parallelism(**degrees, **more, parallel_vae=rng.random() < 0.3)


def some_plan(rng):
    """A plan near the default one: most fields as they are, so that pairs differ in little."""
    plan = make_plan()
    names = rng.sample(sorted(CHOICES), rng.randint(0, 4))
    changes = {name: rng.choice(CHOICES[name]) for name in names}
    if "spec" in changes:
        changes["weights_from"] = changes["spec"].model_id
    if rng.random() < 0.4:
        changes["parallel"] = some_parallelism(rng)
    return replace(plan, **changes)


def test_the_name_of_a_usual_run():
    plan = make_plan("run/x", dataset="open-image-preferences")
    assert str(RunPaths.of(plan).folder) == (
        "run/x/model-black-forest-labs-FLUX_1-dev+batch-4+size-1024x1024+steps-28+guidance-3.5+seed-42"
        "+device-cuda-NVIDIA_H200+ulysses-2+ring-1"
    )


def test_what_differs_from_the_default_is_named():
    plan = make_plan(
        dtype="float32",
        max_sequence_length=256,
        engine="diffusers",
        warmup_iters=2,
        benchmark_iters=8,
        save_images=False,
        revision="v2",
        prompt_column="caption",
        prompt_prefix="oil,",
        negative_prompt="blurry",
        width_px=1280,
        guidance_scale=None,
        parallel=Parallelism(pipefusion=2, cfg=2, num_pipeline_patch=4, parallel_vae=True),
    )
    assert (
        folder_name(plan)
        == (
            "model-black-forest-labs-FLUX_1-dev+batch-4+size-1280x1024+steps-28+guidance-none+seed-42"
            "+device-cuda-NVIDIA_H200+ulysses-1+ring-1+cfg-2+pipefusion-2+patches-4+parallel-vae"
            "+dtype-float32+text-256+engine-diffusers+warmup-2+iters-8+images-none+revision-v2+dataset-"
        )[: 199 - 14]
        + f"+id-{identity_digest(plan)}"
    )


def test_distinct_plans_never_share_a_folder():
    rng = random.Random(0)
    plans = [some_plan(rng) for _ in range(8000)]
    by_name = {}
    for plan in plans:
        by_name.setdefault(folder_name(plan), set()).add(repr(plan))
    shared = {name: same for name, same in by_name.items() if len(same) > 1}
    assert not shared
    assert len(by_name) > 4000


def test_names_are_safe_and_short():
    rng = random.Random(1)
    for plan in (some_plan(rng) for _ in range(2000)):
        name = folder_name(plan)
        assert len(name.encode()) < 200
        assert re.fullmatch(r"[A-Za-z0-9é+_.-]+", name)
        assert "ulysses-" in name or len(name) > 190
        assert name.startswith("model-")


def test_equal_plans_share_a_folder_wherever_their_results_go():
    assert folder_name(make_plan("a")) == folder_name(make_plan("b"))
    assert "column" not in folder_name(make_plan(prompt_column="prompt")), "the column that names leave out"
    cached = make_plan(spec=BY_ID["tiny/flux"], weights_from="/home/me/.cache/tiny")
    assert folder_name(cached) == folder_name(make_plan(spec=BY_ID["tiny/flux"]))


def test_letters_of_other_alphabets_stay_in_their_composed_form():
    name = folder_name(make_plan(dataset="промпты", prompt_column="説明", prompt_order="file"))
    assert name.endswith("+dataset-промпты+column-説明+prompt_order-file")
    composed, taken_apart = (folder_name(make_plan(dataset=text)) for text in ("\u00e9", "e\u0301"))
    assert composed.endswith("+dataset-\u00e9")
    assert "+dataset-\u00e9+id-" in taken_apart, "two texts that look alike are two set-ups"
    assert model_slug("/данные/модель.1") == "данные-модель_1"


def test_only_ascii_remains_where_the_file_system_has_no_more(monkeypatch):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "iso8859-1")
    plan = make_plan(dataset="промпты")
    assert folder_name(plan).endswith(f"+dataset-_______+id-{identity_digest(plan)}")
    assert prompt_slug("Crème дракон") == "creme"


def test_names_of_any_letters_stay_within_the_limit():
    long = replace(DEV, model_id="/м" + "ё/й" * 100)
    plan = make_plan(
        spec=long, device_name="处理器" * 30, dataset="/ж/" * 30, prompt_column="ё" * 99, revision="é"
    )
    paths = RunPaths.of(plan)
    assert len(paths.folder.name.encode()) < 200
    assert len(paths.image(10**6, "龙 " * 90).name.encode()) < 200
    assert "�" not in str(paths.image(1, "龙龙 " * 90))


def test_a_field_that_a_later_version_adds_leaves_the_digests_of_before():
    """The constant is the name that such a run has had since the first version."""
    plan = make_plan(spec=replace(DEV, model_id="org/model"), weights_from="org/model")
    assert folder_name(plan).endswith("+id-47032e0c10")
    assert identity_digest(replace(plan, prompt_order="file")) != identity_digest(plan)


def test_listed_models_have_short_names_of_their_own():
    slugs = [model_slug(model_id) for model_id in BY_ID]
    assert len(set(slugs)) == len(slugs)
    assert all(len(slug) <= 64 for slug in slugs), "the name of the folder keeps 64 characters"


def test_fields_that_a_later_version_adds_are_named_by_themselves():
    @dataclass(frozen=True)
    class LaterPlan(Plan):
        compile: bool = False

    values = {f.name: getattr(make_plan(), f.name) for f in fields(Plan)}
    plain, compiled = (LaterPlan(**values, compile=on) for on in (False, True))
    assert folder_name(plain) == folder_name(make_plan())
    assert folder_name(compiled) == folder_name(plain).partition("+id-")[0] + "+compile-True"


def test_no_known_field_is_out_of_date():
    assert {f.name for f in fields(Plan)} >= KNOWN_FIELDS
    assert {f.name for f in fields(Parallelism)} >= KNOWN_DEGREES


def test_every_file_of_a_run_has_its_place():
    paths = RunPaths.of(make_plan("base"))
    named = [paths.requests, paths.results, paths.driver_log, paths.timeline, paths.lock]
    assert [p.name for p in named] == [
        "requests.json",
        "results.json",
        "driver_log.txt",
        "timeline.parquet",
        ".lock",
    ]
    assert {p.parent for p in named} == {paths.folder}
    image = paths.image(0, "A majestic dragon!")
    assert paths.relative(image) == "image_outputs/black-forest-labs-FLUX_1-dev_0001_a_majestic_dragon.png"


def test_no_two_files_of_a_run_have_one_name():
    paths = RunPaths.of(make_plan("base"))
    files = [getattr(paths, name) for name, kind in vars(RunPaths).items() if isinstance(kind, property)]
    plain = [str(one.folder if isinstance(one, RunPaths) else one) for one in files]
    plain += [str(paths.stacks(rank)) for rank in range(12)]
    plain += [str(paths.image(index, prompt)) for index in range(12) for prompt in ("a", "b")]
    assert len(set(plain)) == len(plain)
    assert paths.new.results.name == "results.json" and paths.new.folder.parent == paths.folder


def test_a_long_path_of_a_model_is_known_by_its_end():
    assert model_slug("/data/" + "long/" * 40 + "my-model.v2").endswith("long-my-model_v2")
    assert len(model_slug("/data/" + "long/" * 40)) == 80


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("two\nlines\tand\x1b[31mred\x1b[0m", "two_lines_and_31mred_0m"),
        ("🐉🔥", "untitled"),
        ("", "untitled"),
        ("Crème brûlée № 5", "creme_brulee_no_5"),
        ("x" * 5000, "x" * 60),
        ('a/b\\c:d*e?f"g<h>i|j\x00k', "a_b_c_d_e_f_g_h_i_j_k"),
        ("слово " * 100, "слово_слово_слово_слово_слово"),
        ("word " * 100, "word_word_word_word_word_word_word_word_word_word_word_word"),
        ("-rf ~", "rf"),
        ("龙在山上", "龙在山上"),
        ("Дракон — над горами!", "дракон_над_горами"),
        ("ÉCLAIR it’s e\u0301", "eclair_its_e"),
        ("が か\u3099 हिन्दी", "が_が_हिन्दी"),
        ("x\u0302 \ud83d\ude00 a", "x_a"),
        ("龙" * 50, "龙" * 20),
        ("ё" * 31, "ё" * 30),
    ],
)
def test_prompts_make_safe_names(prompt, slug):
    assert prompt_slug(prompt) == slug


def test_image_names_stay_within_the_limit_and_apart():
    paths = RunPaths.of(make_plan(spec=replace(DEV, model_id="/a/" + "long/" * 100)))
    names = [paths.image(i, "the same " * 900).name for i in (0, 1, 99_999)]
    assert len(set(names)) == 3
    for name, other in itertools.pairwise(names):
        assert len(name.encode()) < 200
        assert name != other
    assert names[2].find("_100000_") > 0
