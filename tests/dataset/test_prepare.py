"""`mlenergy dataset prepare` on folders and Parquet files that the tests make."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pictures

from mlenergy.diffusion import cli
from mlenergy.diffusion.dataset.draw import drawn_rows

STYLES = ["Abstract_Expressionism", "Ukiyo-e"]


def picture(number, size=(40, 24)):
    """A picture of one colour, which names its number; columns at the left and right are of another."""
    pixels = np.full((size[1], size[0], 3), number, dtype=np.uint8)
    pixels[:, :4] = pixels[:, -4:] = 255
    return Pictures.fromarray(pixels)


def encoded(number, **options):
    stream = io.BytesIO()
    picture(number, **options).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def table(tmp_path):
    """A Parquet file as `datasets` writes one, in several row groups."""
    rows = 30
    table = Dataset.from_dict(
        {
            "picture": [{"bytes": encoded(i), "path": None} for i in range(rows)],
            "style": [i % 2 for i in range(rows)],
            "artist": [f"artist {i}" for i in range(rows)],
            "width": list(range(rows)),
        },
        features=Features(
            {
                "picture": Image(),
                "style": ClassLabel(names=STYLES),
                "artist": Value("string"),
                "width": Value("int64"),
            }
        ),
    )
    table.to_parquet(tmp_path / "table.parquet", batch_size=8)
    return tmp_path / "table.parquet"


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    lines = []
    for i in range(10):
        (source / f"{i}.png").write_bytes(encoded(i))
        lines.append({"file_name": f"{i}.png", "text": f"picture {i}", "title": f"title {i}"})
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return source


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys):
    def call(source, *options, out="out"):
        words = ["dataset", "prepare", str(source), "--out", str(tmp_path / out), *map(str, options)]
        monkeypatch.setattr(sys, "argv", ["mlenergy", *words])
        code = cli.main()
        printed = capsys.readouterr()
        assert printed.err.count("\n") == (1 if code else 0), printed.err
        return code, printed.err if code else printed.out

    return call


def rows_of(out):
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def pixels(file):
    with Pictures.open(file) as opened:
        return np.asarray(opened)


def test_a_draw_takes_each_row_once_and_a_shorter_one_is_its_beginning():
    whole = list(drawn_rows(7, 1000))
    assert sorted(whole) == list(range(1000)) and whole != sorted(whole)
    rows = drawn_rows(7, 1000)
    assert [next(rows) for _ in range(50)] == whole[:50]
    assert list(drawn_rows(8, 1000)) != whole
    first = [next(drawn_rows(seed, 10)) for seed in range(2000)]
    assert all(140 < first.count(row) < 260 for row in range(10)), "each row comes first as often"


def test_captions_are_composed_with_the_names_of_classes_and_belong_to_their_images(table, prepare, tmp_path):
    code, printed = prepare(
        table, "--num_samples", 12, "--seed", 3, "--image_column", "picture",
        "--caption_template", "{style} painting by {artist}", "--plain_labels",
    )  # fmt: skip
    assert (code, printed) == (0, f"{tmp_path / 'out'}: 12 images with captions\n")
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(drawn_rows(3, 30))[:12]
    for row in rows:
        number = row["row"]
        style = ("Abstract Expressionism", "Ukiyo e")[number % 2]
        assert row["text"] == f"{style} painting by artist {number}"
        assert (pixels(tmp_path / "out" / row["file_name"])[5, 20] == number).all()
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record["state"] == "complete" and record["images"] == 12
    assert record["request"]["source"]["files"] == [
        {"name": "table.parquet", "bytes": table.stat().st_size, "rows": 30}
    ]
    digests = [hashlib.sha256((tmp_path / "out" / row["file_name"]).read_bytes()).hexdigest() for row in rows]
    lines = [f"{row['file_name']} {digest}\n" for row, digest in zip(rows, digests, strict=True)]
    assert record["images_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_folder_is_one_that_the_library_datasets_reads(folder, prepare, tmp_path):
    from datasets import load_dataset

    prepare(folder, "--num_samples", 4)
    loaded = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", streaming=True)
    assert [row["text"] for row in loaded] == [row["text"] for row in rows_of(tmp_path / "out")]


def test_plain_bytes_and_a_folder_of_parquet_files(tmp_path, prepare):
    (tmp_path / "parts").mkdir()
    for part in range(2):
        numbers = range(part * 5, part * 5 + 5)
        table = pa.table({"image": [encoded(n) for n in numbers], "text": [f"number {n}" for n in numbers]})
        pq.write_table(table, tmp_path / "parts" / f"{part}.parquet")
    assert prepare(tmp_path / "parts", "--num_samples", 10)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert sorted(row["row"] for row in rows) == list(range(10))
    assert all(row["text"] == f"number {row['row']}" for row in rows)


def test_crop_is_centred_and_the_size_is_recorded(folder, prepare, tmp_path):
    prepare(folder, "--num_samples", 3, "--size", 16)
    for row in rows_of(tmp_path / "out"):
        square = pixels(tmp_path / "out" / row["file_name"])
        assert square.shape == (16, 16, 3)
        assert (square == row["row"]).all(), "the white columns at both sides are cut off alike"
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record["request"]["size_px"] == 16 and "LANCZOS" in record["request"]["image_steps"]
    assert record["enlarged_images"] == 0
    assert "3 images were smaller" in prepare(folder, "--num_samples", 3, "--size", 32, out="larger")[1]


def test_pictures_are_upright_and_transparency_is_white(tmp_path, prepare):
    source = tmp_path / "odd"
    source.mkdir()
    clear = Pictures.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.save(source / "a.png")
    turned = Pictures.new("RGB", (20, 10), "blue")
    turned.getexif()[0x0112] = 6  # stands on its side
    turned.save(source / "b.jpg", exif=turned.getexif())
    for name in "ab":
        (source / f"{name}.txt").write_text(f"  caption\nof {name}  ")
    assert prepare(source, "--num_samples", 2)[0] == 0
    rows = {row["row"]: row for row in rows_of(tmp_path / "out")}
    assert rows[0]["text"] == "caption of a" and rows[0]["source_file"] == "a.png"
    assert (pixels(tmp_path / "out" / rows[0]["file_name"]) == 255).all()
    assert pixels(tmp_path / "out" / rows[1]["file_name"]).shape == (20, 10, 3)


def test_pictures_of_16_bits_are_not_cut_off(tmp_path, prepare):
    source = tmp_path / "deep"
    source.mkdir()
    Pictures.fromarray(np.full((8, 8), 40_000, np.uint16)).save(source / "a.png")
    (source / "a.txt").write_text("deep")
    code, error = prepare(source, "--num_samples", 1)
    assert code == 2 and "more than 8 bits a channel" in error


def test_unreadable_images_and_empty_captions_are_named_and_replaced_on_request(folder, prepare, tmp_path):
    bad = list(drawn_rows(42, 10))[:3]
    (folder / f"{bad[0]}.png").write_bytes(b"no picture")
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines[bad[2]]["text"] = " "
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, error = prepare(folder, "--num_samples", 6)
    assert code == 2 and "2 of the 6 drawn rows" in error
    assert (
        f"row {bad[0]}.png: its image cannot be read" in error and f"row {bad[2]}.png: text is empty" in error
    )
    assert "--skip_unusable" in error and not (tmp_path / "out" / "metadata.jsonl").exists()
    code, printed = prepare(folder, "--num_samples", 6, "--skip_unusable")
    assert code == 0 and "2 rows could not be used" in printed
    drawn = [row for row in drawn_rows(42, 10) if row not in (bad[0], bad[2])]
    assert [row["row"] for row in rows_of(tmp_path / "out")] == drawn[:6]
    code, error = prepare(folder, "--num_samples", 9, "--skip_unusable", out="more")
    assert code == 2 and "only 8 rows" in error


def test_an_interrupted_one_goes_on_and_makes_the_same_files(table, prepare, tmp_path, monkeypatch):
    from mlenergy.diffusion.dataset import prepare as module

    options = ("--num_samples", 8, "--image_column", "picture", "--caption_column", "artist")
    prepare(table, *options, out="whole")
    real, written = module.save_png, []

    def interrupted(image, path, size_px):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path.name)
        return real(image, path, size_px)

    monkeypatch.setattr(module, "save_png", interrupted)
    assert prepare(table, *options)[0] == 130
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    damaged = tmp_path / "out" / written[0]
    damaged.write_bytes(b"half")
    again = []
    monkeypatch.setattr(module, "save_png", lambda *a: (again.append(a[1].name), real(*a))[1])
    code, printed = prepare(table, *options)
    assert code == 0 and "going on after 4 of 8" in printed
    assert len(again) == 4 and set(again) & set(written) == {written[0]}
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "out").iterdir())
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "out" / n).read_bytes() for n in names)
    monkeypatch.setattr(module, "save_png", None)
    assert "complete already" in prepare(table, *options)[1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--num_samples", 31), "has 30 rows, fewer than --num_samples 31; ask for 30 or fewer"),
        ((), "no column 'image'; set --image_column out of: artist, picture, style, width"),
        (("--image_column", "picture"), "no column 'text'; set --caption_column out of"),
        (("--image_column", "picture", "--caption_template", "by {painter}"), "no column 'painter'"),
        (("--image_column", "picture", "--caption_template", "by me"), "names no column"),
        (("--image_column", "picture", "--caption_template", "by {artist"), "cannot be read"),
        (("--image_column", "picture", "--caption_template", "by {artist.name}"), "is no plain column"),
        (("--image_column", "artist", "--caption_column", "style", "--num_samples", 3), "it has no image"),
    ],
)
def test_mistakes_are_one_line(table, prepare, options, line):
    if options and options[0] == "--num_samples":
        options = (*options, "--image_column", "picture", "--caption_column", "artist")
    code, error = prepare(table, *options)
    assert code == 2 and line in error


def test_wrong_sources_and_folders_are_one_line(folder, table, prepare, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no images" in prepare(empty)[1]
    (empty / "a.png").write_bytes(encoded(1))
    assert "1 of the 1 images" in (line := prepare(empty)[1]) and "a.png; put a .txt file" in line
    (empty / "metadata.jsonl").write_text('{"text": "no name"}')
    assert "line 1 has no file_name" in prepare(empty)[1]
    assert "there is no file or folder ./nowhere" in prepare("./nowhere")[1]
    (tmp_path / "torn.parquet").write_bytes(table.read_bytes()[:-20])
    assert "not a well-formed Parquet file" in prepare(tmp_path / "torn.parquet")[1]
    assert "both the source and --out" in prepare(folder, out="pictures")[1]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    assert "holds other files (thesis.tex)" in prepare(folder, "--num_samples", 2, out="full")[1]
    assert prepare(folder, "--num_samples", 2)[0] == 0
    assert "another dataset (different seed)" in prepare(folder, "--num_samples", 2, "--seed", 1)[1]
    (tmp_path / "out" / "metadata.jsonl").write_text("")
    assert "has changed since it was written" in prepare(folder, "--num_samples", 2)[1]
    Path(tmp_path / "out" / "dataset.json").write_text("{")
    assert "dataset.json cannot be read" in prepare(folder, "--num_samples", 2)[1]
