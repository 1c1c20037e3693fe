"""Weight files are brought into the page cache beside the imports, and no longer."""

import os
from types import SimpleNamespace

import pytest

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights import files, read_ahead
from mlenergy.diffusion.weights.files import Cached, cached_share
from mlenergy.diffusion.weights.read_ahead import ReadAhead


@pytest.fixture
def two(tmp_path):
    """Files of 1000 and 3000 bytes."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, size in zip(paths, (1000, 3000), strict=True):
        path.write_bytes(os.urandom(size))
    return paths


def preadv(*on_disk):
    """In the place of the system's: a read of these files would have to wait."""
    inodes = {path.stat().st_ino for path in on_disk}

    def read(file, buffers, place, flags):
        assert flags == os.RWF_NOWAIT and len(buffers[0]) == 1 and place < os.fstat(file).st_size
        if os.fstat(file).st_ino in inodes:
            raise BlockingIOError
        return 1

    return read


def test_the_share_in_the_page_cache_is_of_bytes(two, monkeypatch):
    monkeypatch.setattr(os, "preadv", preadv(two[1]))
    assert cached_share(two) == Cached(0.25, None, frozenset(two[:1]))
    assert cached_share(two[:1]).share == 1.0 and cached_share(two[1:]) == Cached(0.0)


def test_where_the_system_does_not_tell_the_share_is_unknown(two, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", refuse)
    found = cached_share(two)
    assert found.share is None and "does not tell" in found.reason
    monkeypatch.delattr(os, "RWF_NOWAIT")
    assert cached_share(two) == found
    assert cached_share([]).share is None


def test_a_file_that_was_just_written_and_one_that_was_dropped(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4 << 20))
    record = finished(ReadAhead([path]))
    if record["in_page_cache"] is None:
        pytest.skip("this file system does not tell")
    assert (record["in_page_cache"], record["read_bytes"]) == (1.0, 0)
    drop(path)
    record = finished(ReadAhead([path]))
    assert record["in_page_cache"] < 0.1 and record["read_bytes"] == 4 << 20
    assert cached_share([path]).share == 1.0
    # To ask what is there brings in no more than the places that were asked for.
    drop(path)
    assert cached_share([path]).share < 0.1
    monkeypatch.setattr(files, "_PROBES", 63)  # nearly all in other pages
    assert cached_share([path]).share < 0.3


def drop(path):
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def finished(ahead):
    ahead.join()
    return ahead.end()


def test_what_is_not_in_memory_is_read_once(two, monkeypatch):
    monkeypatch.setattr(os, "preadv", preadv(two[1]))
    record = finished(ReadAhead(two))
    assert (record["files"], record["bytes"], record["in_page_cache"]) == (2, 4000, 0.25)
    assert record["read_bytes"] == 3000 and record["seconds"] > 0
    monkeypatch.setattr(os, "preadv", preadv())
    record = finished(ReadAhead(two))
    assert (record["in_page_cache"], record["read_bytes"], record["seconds"]) == (1.0, 0, 0.0)


def test_reading_ends_when_it_is_told_to(two, monkeypatch):
    monkeypatch.setattr(os, "preadv", preadv(*two))
    monkeypatch.setattr(read_ahead, "_CHUNK_BYTES", 1)
    two[1].write_bytes(bytes(4_000_000))
    ahead = ReadAhead(two)
    record = ahead.end()
    assert record["read_bytes"] < record["bytes"] == 4_001_000
    assert not any(thread.is_alive() for thread in ahead._threads)


def test_no_more_is_read_than_memory_holds(two, monkeypatch):
    monkeypatch.setattr(os, "preadv", preadv(*two))
    monkeypatch.setattr(read_ahead, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(read_ahead, "_THREADS", 1)
    memory = SimpleNamespace(available=2000)
    monkeypatch.setattr(read_ahead.psutil, "virtual_memory", lambda: memory)
    assert finished(ReadAhead(two))["read_bytes"] == 1600


def test_a_file_that_cannot_be_read_is_left_to_the_loader(two, monkeypatch):
    monkeypatch.setattr(read_ahead, "cached_share", lambda _: Cached(0.0))
    monkeypatch.setattr(read_ahead, "total_bytes", lambda _: 3000)
    two[0].unlink()
    assert finished(ReadAhead(two))["read_bytes"] == 3000


def plan(weights_from, **options):
    fields = {"weights": "pretrained", "revision": None, "variant": None, "spec": BY_ID["tiny/flux"]}
    return SimpleNamespace(weights_from=str(weights_from), **(fields | options))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    for part in ("transformer", "vae", "safety_checker", "tokenizer"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(b"x")
    (folder / "model_index.json").write_text(
        '{"_class_name": "X", "vae": ["diffusers", "V"], "transformer": ["diffusers", "T"], '
        '"safety_checker": ["x", "S"]}'
    )
    return folder


def test_the_components_that_are_loaded_are_read_in_their_order(model):
    found = read_ahead._local_files(plan(model))
    assert found == [model / part / "model.safetensors" for part in ("vae", "transformer")]
    assert files.total_bytes(found) == 2


def test_a_model_of_the_hub_is_read_ahead_where_it_is_in_the_cache(model, monkeypatch):
    asked = []

    def look(hub_id, file, revision):
        asked.append((hub_id, file, revision))
        return str(model / "model_index.json")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    assert len(read_ahead._local_files(plan("owner/name", revision="v1"))) == 2
    assert asked == [("owner/name", "model_index.json", "v1")]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    assert read_ahead.read_ahead(plan("owner/name"), Rank()) is None


def test_nothing_is_read_ahead_where_no_file_is_loaded_or_the_folder_is_wrong(model):
    assert read_ahead.read_ahead(plan(model, weights="random"), Rank()) is None
    assert read_ahead.read_ahead(plan("tiny/flux"), Rank()) is None
    (model / "model_index.json").write_text("{")
    assert read_ahead.read_ahead(plan(model), Rank()) is None


def test_one_rank_of_a_node_reads_for_all(model):
    begun = [
        read_ahead.read_ahead(plan(model), Rank(rank=rank, local_rank=rank % 2, world_size=4))
        for rank in range(4)
    ]
    assert [ahead is not None for ahead in begun] == [True, False, True, False]
    assert finished(begun[2])["files"] == finished(begun[0])["files"] == 2
