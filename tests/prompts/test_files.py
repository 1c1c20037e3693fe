"""Prompts from files and folders: every format, whole, without the images beside them."""

import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts import sources
from mlenergy.diffusion.prompts.sources import load_pool

PROMPTS = ('a fox, "quoted"', "eine Straße im Schnee ❄\ufe0f", "two\nlines", "x" * 5000)
CATEGORIES = ("animal", "city", None, "odd")


def write(folder, kind):
    """The same rows as a file of a kind."""
    file = folder / f"prompts.{kind}"
    rows = [
        {"id": i, "prompt": p, "category": c}
        for i, (p, c) in enumerate(zip(PROMPTS, CATEGORIES, strict=True))
    ]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    else:
        with file.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, ["id", "prompt", "category"])
            writer.writeheader()
            writer.writerows(rows)
    return file


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv"])
def test_every_format_gives_the_prompts_as_they_are(tmp_path, kind):
    pool = load_pool(str(write(tmp_path, kind)))
    assert pool.prompts == PROMPTS
    assert pool.categories == (CATEGORIES)
    assert pool.provenance["source"] == "file"


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffa fox\r\n\n  a crow  \n", encoding="utf-8")
    assert load_pool(str(file)).prompts == ("a fox", "a crow")


def test_json_may_be_a_list_of_prompts(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text('["a fox", "a crow"]')
    assert load_pool(str(file)).prompts == ("a fox", "a crow")


def test_another_column_can_hold_the_prompts(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"caption": "a fox", "prompt": "no"}\n')
    assert load_pool(str(file), "caption").prompts == ("a fox",)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name, prompt in {
        "b/1.txt": "third",
        "a.txt": "first",
        "b/0.txt": "second",
        ".hidden/x.txt": "no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(prompt)
    pool = load_pool(str(tmp_path))
    assert pool.prompts == ("first", "second", "third")
    assert pool.provenance["files"] == 3


def test_images_in_a_parquet_file_are_never_read(tmp_path):
    """The image column's bytes are destroyed on disk: whoever reads them fails, or gets something else."""
    file = tmp_path / "pictures.parquet"
    table = pa.table(
        {"image": [os.urandom(200_000) for _ in range(20)], "prompt": [f"p{i}" for i in range(20)]}
    )
    pq.write_table(table, file, row_group_size=5, compression="zstd", use_dictionary=False)
    metadata = pq.read_metadata(file)
    with file.open("r+b") as stream:
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(0)
            stream.seek(chunk.data_page_offset)
            stream.write(b"\xff" * chunk.total_compressed_size)
    with pytest.raises(OSError):
        pq.read_table(file)
    assert load_pool(str(file)).prompts == tuple(f"p{i}" for i in range(20))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv"])
def test_a_missing_column_lists_those_there_are(tmp_path, kind):
    with pytest.raises(
        UserError, match=r"no column 'text'; set --workload.prompt_column to one of: category, id, prompt$"
    ):
        load_pool(str(write(tmp_path, kind)), "text")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.txt", "", "p.txt holds no prompts"),
        ("p.txt", "\n \n", "p.txt holds no prompts"),
        ("p.csv", "", "p.csv holds no prompts"),
        ("p.csv", "prompt\n", "p.csv holds no prompts"),
        ("p.jsonl", "", "p.jsonl holds no prompts"),
        ("p.json", "[]", "p.json holds no prompts"),
        ("p.json", "{}", "holds a dict; it has to be a list"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "  "}\n', "prompt of row 2 is empty"),
        ("p.csv", 'prompt,x\n"",1\n', "prompt of row 1 is empty"),
        ("p.jsonl", '{"prompt": null}\n', "prompt of row 1 is empty"),
        ("p.jsonl", '{"prompt": 7}\n', "prompt of row 1 is a int, not text"),
        ("p.jsonl", '{"prompt": "a"', "not a well-formed jsonl file"),
        ("p.parquet", "PAR1 not really", "not a well-formed parquet file"),
        ("p.docx", "x", "prompts come from .parquet, .jsonl, .json, .csv, .txt files"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=complaint) as caught:
        load_pool(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="not a well-formed txt file"):
        load_pool(str(tmp_path / "p.txt"))


def test_missing_files_and_folders_without_prompts_are_refused(tmp_path):
    for dataset, complaint in {
        str(tmp_path / "none.txt"): "there is no file or folder",
        "prompts-that-are-not-there.jsonl": "there is no file or folder",
        str(tmp_path): "has no .parquet, .jsonl, .json, .csv, .txt file",
    }.items():
        with pytest.raises(UserError, match=complaint):
            load_pool(dataset)


def test_a_folder_of_mixed_kinds_is_refused(tmp_path):
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("prompt\nx\n")
    with pytest.raises(UserError, match=r"mixes .csv and .txt files"):
        load_pool(str(tmp_path))


def test_vbench_prompts_are_read_from_its_file(tmp_path):
    rows = [
        {"prompt_en": "a bear climbing a tree", "dimension": ["subject_consistency"]},
        {"prompt_en": "a cat eating food out of a bowl", "dimension": ["motion_smoothness", "overall"]},
    ]
    file = tmp_path / "VBench_full_info.json"
    file.write_text(json.dumps(rows))
    assert list(load_pool(str(file), "prompt_en").prompts) == [row["prompt_en"] for row in rows]
    with pytest.raises(UserError, match="prompt_en"):
        load_pool(str(file))  # the columns that there are stand in the line


def test_the_bundled_prompts_of_videos_are_other_ones():
    videos, images = load_pool("bundled-videos"), load_pool("bundled")
    assert len(videos.prompts) == len(set(videos.prompts)) > 30
    assert not set(videos.prompts) & set(images.prompts)
    assert videos.provenance["dataset"] == "bundled-videos"


@pytest.mark.parametrize(("column", "read"), [("prompt", "text"), ("other", "other")])
def test_evalcrafter_is_a_set_of_the_hub_whose_prompts_are_its_texts(monkeypatch, column, read):
    asked = []
    monkeypatch.setattr(sources, "read_hub", lambda dataset, name: asked.append((dataset.dataset_id, name)))
    load_pool("evalcrafter", column)
    assert asked == [("RaphaelLiu/EvalCrafter_T2V_Dataset", read)]
