"""Weight files: which ones are read, by how many threads, onto which device, and how fast."""

import importlib.util
import json
import os
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models import model_loading_utils, modeling_utils
from diffusers.pipelines import pipeline_utils
from diffusers.utils import constants

from mlenergy.diffusion import engines
from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights import load_report, pipeline
from mlenergy.diffusion.weights.files import component_files
from mlenergy.diffusion.weights.load_report import LoadWatch
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.reading import note_reading, read_shards_in_parallel, reading_of
from mlenergy.diffusion.weights.tiny import tiny_folder

SWITCH = "HF_ENABLE_PARALLEL_LOADING"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """tiny/flux whose transformer and large text encoder lie in several files each."""
    whole = DiffusionPipeline.from_pretrained(tiny_folder("tiny/flux"))
    folder = tmp_path_factory.mktemp("sharded") / "model"
    whole.save_pretrained(folder, max_shard_size="300KB")
    # What a loader leaves alone, although it has the right ending.
    first = next((folder / "vae").glob("*.safetensors"))
    shutil.copy(first, folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(first, folder / "left_over.safetensors")
    return folder


def plan_for(folder, dtype="float32", **options):
    """The fields of a Plan that loading reads."""
    fields = {"weights": "pretrained", "revision": None, "variant": None, "lora": None}
    fields |= {"allow_pickle": False, "trust_remote_code": False, "dtype": dtype}
    return SimpleNamespace(weights_from=str(folder), spec=BY_ID["tiny/flux"], **(fields | options))


def load(folder, device=CPU, **options):
    plan = plan_for(folder, **options)
    return pipeline.load(locate(plan), plan, device)


def weights_of(loaded):
    modules = {name: part for name, part in loaded.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{part}.{key}": value for part in modules for key, value in modules[part].state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_that_are_read_beside_each_other_give_the_same_bits(sharded, monkeypatch, dtype):
    read, threads = model_loading_utils.load_state_dict, {}

    def noted(file, *args, **options):
        threads[str(file)] = threading.current_thread() is threading.main_thread()
        return read(file, *args, **options)

    monkeypatch.setattr(model_loading_utils, "load_state_dict", noted)
    found = {}
    for is_parallel in (False, True):
        monkeypatch.setattr(modeling_utils, SWITCH, is_parallel)
        threads.clear()
        found[is_parallel] = load(sharded, dtype=dtype)
        shards = [in_main for file, in_main in threads.items() if "transformer" in file]
        assert len(shards) > 2 and shards == [not is_parallel] * len(shards)
        assert reading_of(found[is_parallel])["shard_threads"] == (8 if is_parallel else 1)
    one_by_one, beside = (weights_of(loaded) for loaded in found.values())
    assert one_by_one.keys() == beside.keys() and len(beside) > 100
    for name, value in beside.items():
        assert value.dtype == one_by_one[name].dtype and torch.equal(value, one_by_one[name]), name


def test_the_record_has_each_file_once_and_the_rate(sharded):
    record = reading_of(load(sharded))
    files = [path for path in sharded.glob("*/*.safetensors") if "fp16" not in path.name]
    assert len(files) > 6
    assert (record["files"], record["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert record["bytes_per_s"] == pytest.approx(record["bytes"] / record["seconds"])
    assert record["text_encoder_threads"] == min(4, os.cpu_count())
    assert LoadWatch(CPU).facts(load(sharded)).keys() >= {"weights_read", "host_uss_growth_bytes"}


def test_a_file_of_two_components_counts_once(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"x" * 100)
    model = SimpleNamespace()
    note_reading(model, [path, path], 2.0, shard_threads=1)
    record = reading_of(model)
    assert (record["files"], record["bytes"], record["bytes_per_s"], record["shard_threads"]) == (
        1,
        100,
        50.0,
        1,
    )
    assert reading_of(SimpleNamespace()) is None


class Clock:
    """A clock that only waiting for the device moves."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def synchronize(self, _device):
        self.now += 5.0


def test_copies_to_the_device_are_waited_for(sharded, monkeypatch):
    clock = Clock()
    for module in (pipeline, load_report):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "synchronize", clock.synchronize)
    watch = LoadWatch(CPU)
    assert reading_of(load(sharded))["seconds"] == 5.0
    assert watch.load_s == 10.0


def test_every_component_goes_to_the_rank_s_own_gpu(sharded, monkeypatch):
    seen, load_one = {}, pipeline_utils.load_sub_model

    def on_cpu(**options):
        seen[options["name"]] = options["device_map"]
        return load_one(**(options | {"device_map": "cpu"}))

    monkeypatch.setattr(pipeline_utils, "load_sub_model", on_cpu)
    monkeypatch.setattr(pipeline, "synchronize", lambda _: None)
    loaded = load(sharded, torch.device("cuda", 1))
    # With "cuda" alone, threads that read shards would take GPU 0: the current device is one of each thread.
    assert {seen[name] for name in ("transformer", "text_encoder", "text_encoder_2", "vae")} == {"cuda:1"}
    assert loaded.hf_device_map == "cuda:1"


def test_the_library_s_switch_is_set_before_it_is_imported(monkeypatch):
    monkeypatch.setenv(SWITCH, "")  # so that it is put back
    monkeypatch.delenv(SWITCH)
    words = ["--engine", "diffusers", "--device", "cpu", "workload:t2i", "--workload.model_id", "tiny/flux"]
    _, plan = plan_from(words, 1, "test")
    seen = []
    monkeypatch.setattr(engines, "_engine_class", lambda _: seen.append(read_anew()))
    assert not read_anew()
    engines.import_engine(plan)
    assert seen == [True]
    monkeypatch.setenv(SWITCH, "no")
    read_shards_in_parallel()
    assert os.environ[SWITCH] == "no" and not read_anew()


def read_anew():
    """The switch as diffusers would read it if it were imported now."""
    spec = importlib.util.spec_from_file_location("diffusers.utils.constants_anew", constants.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, SWITCH)


CASES = {
    "one file": (["model.safetensors"], None, ["model.safetensors"]),
    "safetensors before pickles": (["pytorch_model.bin", "model.safetensors"], None, ["model.safetensors"]),
    "pickles alone": (["pytorch_model.bin"], None, ["pytorch_model.bin"]),
    "the variant": (["model.safetensors", "model.fp16.safetensors"], "fp16", ["model.fp16.safetensors"]),
    "no such variant": (["model.safetensors"], "fp16", ["model.safetensors"]),
    "another variant": (["model.safetensors", "model.fp16.safetensors"], None, ["model.safetensors"]),
    "other weights": (["diffusion_pytorch_model.non_ema.safetensors", "flax_model.msgpack"], None, []),
    "a tokenizer": (["tokenizer.json"], None, []),
}


@pytest.mark.parametrize("case", CASES)
def test_files_of_a_component(tmp_path, case):
    there, variant, read = CASES[case]
    for name in there:
        (tmp_path / name).touch()
    assert component_files(tmp_path, variant) == [tmp_path / name for name in read]


@pytest.mark.parametrize(("variant", "mark"), [(None, ""), ("fp16", ".fp16")])
def test_shards_of_a_component(tmp_path, variant, mark):
    shards = ["b-00001.safetensors", "b-00002.safetensors"]
    content = json.dumps({"weight_map": {"x": shards[1], "y": shards[0], "z": shards[1]}})
    for stem in ("model", "diffusion_pytorch_model"):
        folder = tmp_path / stem
        folder.mkdir()
        (folder / f"{stem}.safetensors.index{mark}.json").write_text(content)
        assert component_files(folder, variant) == [folder / name for name in shards]
        # Where there is a whole file too, the libraries do not agree.
        whole = folder / f"{stem}{mark}.safetensors"
        whole.touch()
        expected = [whole] if stem == "model" else [folder / name for name in shards]
        assert component_files(folder, variant) == expected
