"""Reference images: folders with and without metadata.jsonl, Parquet files, and what is none."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from extractors import pictures, save_folder

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality import images as module
from mlenergy.diffusion.quality.images import read_images

IMAGES = pictures(5, 0)


def same(found, expected):
    assert len(found) == len(expected)
    return all(
        np.array_equal(*pair) for pair in zip(found.pixels(range(len(expected))), expected, strict=True)
    )


@pytest.fixture
def table(tmp_path):
    """Two Parquet files as the hub has them: a record of bytes and path, and a caption."""
    folder, plain = tmp_path / "table", save_folder(tmp_path / "files", IMAGES)
    folder.mkdir()
    contents = [file.read_bytes() for file in sorted(plain.iterdir())]
    for name, part in (("a", contents[:3]), ("b", contents[3:])):
        records = [{"bytes": content, "path": None} for content in part]
        texts = [f"{name} {number}" for number in range(len(part))]
        pq.write_table(
            pa.table({"image": records, "text": texts, "other": texts}), folder / f"{name}.parquet"
        )
    return folder


def test_a_folder_with_metadata_has_the_images_that_it_names_with_their_texts(tmp_path):
    folder = save_folder(tmp_path / "folder", IMAGES, [f"text {number}" for number in range(5)])
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(reversed(lines[1:])) + "\n")
    found = read_images(folder)
    assert [image.text for image in found.images] == ["text 4", "text 3", "text 2", "text 1"]
    assert same(found, IMAGES[:0:-1])
    assert found.images[0].sha256 == hashlib.sha256((folder / "004.png").read_bytes()).hexdigest()
    assert read_images(folder / "metadata.jsonl").sha256 == found.sha256
    other = read_images(folder, text_column="caption")
    assert other.images[0].text is None and other.sha256 == found.sha256


def test_a_folder_without_metadata_has_its_images_in_the_order_of_their_names(tmp_path):
    folder = save_folder(tmp_path / "folder", IMAGES[1:])
    save_folder(folder / "000", IMAGES[:1])
    save_folder(folder / ".hidden", IMAGES[:1])
    (folder / "notes.txt").write_text("no image")
    assert same(read_images(folder), IMAGES)


def test_parquet_files_are_read_a_few_rows_at_a_time(table, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 2)
    found = read_images(table)
    assert same(found, IMAGES) and found.images[3].text == "b 0"
    assert [len(one) for one in found.contents([1, 4])] == [
        len(content) for content in list(found.contents(range(5)))[1::3]
    ]
    single = read_images(table / "b.parquet", text_column="other")
    assert same(single, IMAGES[3:]) and single.images[1].text == "b 1"


def test_sets_of_the_same_images_are_the_same_reference(tmp_path, table):
    assert read_images(tmp_path / "files").sha256 == read_images(table).sha256
    assert save_folder(tmp_path / "fewer", IMAGES[:4]) and read_images(tmp_path / "fewer").sha256 != (
        read_images(table).sha256
    )


def test_an_image_that_changes_while_it_is_read_is_noticed(tmp_path):
    folder = save_folder(tmp_path / "folder", IMAGES)
    found = read_images(folder)
    (folder / "002.png").write_bytes((folder / "003.png").read_bytes())
    with pytest.raises(UserError, match=r"002.png has changed while it was being read; start again"):
        list(found.pixels(range(5)))


def test_what_holds_no_images_is_refused_in_one_line(tmp_path, table):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a")
    broken = save_folder(tmp_path / "broken", IMAGES[:1])
    (broken / "001.png").write_bytes(b"no image")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.png").write_bytes(b"")
    (tmp_path / "mixed" / "a.parquet").write_bytes(b"")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "norows.parquet")
    pq.write_table(pa.table({"image": ["a path"]}), tmp_path / "paths.parquet")
    named = save_folder(tmp_path / "named", IMAGES[:1])
    for path, line in (
        (tmp_path / "none", "there is no such file or folder"),
        (tmp_path / "empty", "the folder holds no images"),
        (tmp_path / "text.txt", "give a folder of images, a metadata.jsonl, a Parquet file or a run"),
        (tmp_path / "mixed", "holds images and Parquet files; name the one to read"),
        (tmp_path / "torn.parquet", "is not a well-formed Parquet file"),
        (tmp_path / "norows.parquet", "it holds no rows"),
        (tmp_path / "paths.parquet", "row 1 has no image in column 'image'"),
    ):
        with pytest.raises(UserError, match=line) as refused:
            read_images(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(
        UserError, match="has no column 'picture'; set --image_column to one of: image, other, text"
    ):
        read_images(table, image_column="picture")
    with pytest.raises(UserError, match=r"001.png is not an image that can be read"):
        list(read_images(broken).pixels([0, 1]))
    for content, line in (
        ("", "names no images"),
        ("{", "cannot be read as JSON lines"),
        (json.dumps({"text": "a"}), "line 1 has no file_name"),
        (json.dumps({"file_name": "other.png"}), "line 1 names other.png, which is not there"),
    ):
        (named / "metadata.jsonl").write_text(content)
        with pytest.raises(UserError, match=line):
            read_images(named)
