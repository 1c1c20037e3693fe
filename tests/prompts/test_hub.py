"""Prompts from the hub: real `datasets` against a hub double that counts every byte it hands out."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_double import SHA, HubDouble

ROWS = 64
IMAGE_BYTES = 250_000

# In a process of its own, because the hub's client reads its address when it is imported.
READ = """
import json, sys
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests
for dataset, column in json.loads(sys.argv[1]):
    try:
        drawn = sample_requests(PromptOptions(dataset, column), 100, 1)
        prompts, category = [r.prompt for r in drawn.requests], drawn.requests[0].category
        print(json.dumps({"prompts": prompts, "category": category, **drawn.provenance}))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
"""


def parquet_with_images() -> bytes:
    table = pa.table(
        {
            "image_a": [os.urandom(IMAGE_BYTES) for _ in range(ROWS)],
            "prompt": [f"prompt {i}" if i else None for i in range(ROWS)],
            "image_b": [os.urandom(IMAGE_BYTES) for _ in range(ROWS)],
            "category": ["Anime"] * ROWS,
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=16)
    return file.getvalue()


def read(url, tmp_path, *sources, **environment):
    """Read sources in one fresh process, the cache being below tmp_path."""
    folders = {
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(sources)],
        env={**os.environ, **folders, "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_the_prompts_travel_and_are_kept_by_revision(tmp_path):
    data = parquet_with_images()
    files = {"data/train-00000-of-00001.parquet": data, "data/cleaned-00000-of-00001.parquet": data}
    with HubDouble("org/pictures", files) as hub:
        first, column, split, revision = read(
            hub.url,
            tmp_path,
            ("org/pictures:cleaned", "prompt"),
            ("org/pictures:cleaned", "caption"),
            ("org/pictures:test", "prompt"),
            ("org/elsewhere", "prompt"),
        )
        content_bytes = sum(hub.bytes_sent.values())
        calls = len(hub.requests)
        (again,) = read(hub.url, tmp_path, (f"org/pictures:cleaned@{SHA}", "prompt"))
        assert len(hub.requests) == calls, "a full commit that is in the cache needs no network"
    assert len(data) > 30_000_000
    assert content_bytes < 2_000_000, f"images travelled: {dict(hub.bytes_sent)}"
    assert set(first["prompts"]) == {f"prompt {i}" for i in range(1, ROWS)}
    assert first["category"] == "Anime"
    assert (first["revision"], first["split"], first["empty_prompts_left_out"]) == (SHA, "cleaned", 1)
    assert again["prompts"] == first["prompts"]
    assert column["error"].endswith("to one of: category, image_a, image_b, prompt")
    assert split["error"].endswith("name one as org/pictures:SPLIT out of train, cleaned")
    assert "the hub has no dataset org/elsewhere" in revision["error"]


def test_text_formats_and_single_splits_are_read_too(tmp_path):
    lines = b"".join(json.dumps({"prompt": f"t{i}", "n": i}).encode() + b"\n" for i in range(5))
    with HubDouble("org/lines", {"test.jsonl": lines}) as hub:
        (result,) = read(hub.url, tmp_path, ("org/lines", "prompt"))
    assert set(result["prompts"]) == {f"t{i}" for i in range(5)}
    assert result["split"] is None, "none was named: it is the only one"


def test_a_torn_cache_file_is_read_anew(tmp_path):
    lines = b'{"prompt": "right"}\n'
    with HubDouble("org/lines", {"test.jsonl": lines}) as hub:
        read(hub.url, tmp_path, ("org/lines", "prompt"))
        (cached,) = (tmp_path / "cache" / "mlenergy" / "requests").glob("*.json")
        cached.write_text(cached.read_text().replace("right", "wrong"))
        (result,) = read(hub.url, tmp_path, ("org/lines", "prompt"))
    assert set(result["prompts"]) == {"right"}


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with HubDouble("org/lines", {"test.jsonl": b'{"prompt": "right"}\n'}) as hub:
        (result,) = read(hub.url, tmp_path, ("org/lines", "prompt"))
    assert set(result["prompts"]) == {"right"}


@pytest.mark.parametrize(
    ("status", "code", "complaint"),
    [
        (403, "GatedRepo", "org/x is gated: accept its terms"),
        (404, "RevisionNotFound", "the dataset org/x has no revision 'v9'"),
        (401, "RepoNotFound", "the hub has no dataset org/x, or hides it from you"),
    ],
)
def test_the_hubs_refusals_say_what_to_do(tmp_path, status, code, complaint):
    with HubDouble("org/x", {}, status, code) as hub:
        (result,) = read(hub.url, tmp_path, ("org/x@v9", "prompt"))
    assert complaint in result["error"]
    assert "\n" not in result["error"]


def test_no_network_is_one_line_that_names_the_way_out(tmp_path):
    for settings in ({}, {"HF_HUB_OFFLINE": "1"}):
        (result,) = read("http://127.0.0.1:9", tmp_path, ("open-image-preferences", "prompt"), **settings)
        assert "check the network, or use --workload.dataset bundled" in result["error"]
        assert "\n" not in result["error"]
