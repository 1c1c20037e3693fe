"""A dataset of the hub: real `datasets` against a hub double."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hub_double import SHA, HubDouble
from PIL import Image as Pictures

ROWS = 40


def parquet(tmp_path, first):
    """Forty pictures of one colour each, which names the row."""
    content = []
    for row in range(first, first + ROWS // 2):
        stream = io.BytesIO()
        Pictures.fromarray(np.full((16, 16, 3), row, np.uint8)).save(stream, format="PNG")
        content.append({"bytes": stream.getvalue(), "path": None})
    features = Features(
        {"image": Image(), "style": ClassLabel(names=["Cubism", "Pop_Art"]), "n": Value("int64")}
    )
    columns = {"image": content, "style": [row % 2 for row in range(20)], "n": list(range(first, first + 20))}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "part.parquet")
    return (tmp_path / "part.parquet").read_bytes()


@pytest.mark.full
def test_a_dataset_of_the_hub_is_drawn_at_its_commit(tmp_path):
    files = {f"data/train-0000{part}-of-00002.parquet": parquet(tmp_path, 20 * part) for part in range(2)}
    command = [sys.executable, "-m", "mlenergy.diffusion", "dataset", "prepare", "org/art", "--out", "out"]
    command += ["--num_samples", "9", "--caption_template", "{style} number {n}"]
    folders = {
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    with HubDouble("org/art", files) as hub:
        # In a process of its own, because the hub's client reads its address when it is imported.
        environ = {**os.environ, **folders, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

        def call(*more):
            return subprocess.run(
                [*command, *more], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
            )

        done = call()
        assert done.returncode == 0, done.stderr
        refused = call("--out", "other", "--num_samples", "41")
        lacking = call("--out", "other", "--caption_template", "{title}")
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 9 and len({row["row"] for row in rows}) == 9
    for row in rows:
        assert row["text"] == f"{('Cubism', 'Pop_Art')[row['row'] % 2]} number {row['row']}"
        with Pictures.open(tmp_path / "out" / row["file_name"]) as image:
            assert image.getpixel((3, 3)) == (row["row"],) * 3
    source = json.loads((tmp_path / "out" / "dataset.json").read_text())["request"]["source"]
    assert (source["kind"], source["split"], source["revision"]) == ("hub", "train", SHA)
    assert "has 40 rows, fewer than --num_samples 41" in refused.stderr
    assert "no column 'title'" in lacking.stderr
