"""Weights get in through one door, and what cannot load is refused in one line."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hub_double import SHA

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain, read_model
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.tiny import tiny_folder


def plan_for(weights, **options):
    """The fields of a Plan that loading reads."""
    fields = {"revision": None, "dtype": "float32", "variant": None, "lora": None}
    return SimpleNamespace(
        weights_from=str(weights),
        weights="pretrained",
        spec=BY_ID["tiny/flux"],
        **({"allow_pickle": False, "trust_remote_code": False} | fields | options),
    )


def load(weights, **options):
    from mlenergy.diffusion.weights.pipeline import load

    plan = plan_for(weights, **options)
    return load(locate(plan), plan, "cpu")


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return tiny_folder("tiny/flux", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy(flux, tmp_path):
    return shutil.copytree(flux, tmp_path / "model")


def edit_index(folder, **changes):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_index_and_configs_are_read_without_torch(flux):
    code = (
        "import sys; from mlenergy.diffusion.models.hub import *; "
        f"model = read_model({str(flux)!r}); assert model.index['_class_name'] == 'FluxPipeline'; "
        "assert model.component_config('transformer')['num_attention_heads'] == 4; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scheduler_config_and_missing_component(flux):
    model = read_model(str(flux))
    assert model.component_config("scheduler")["shift"] == 3.0
    with pytest.raises(UserError, match=r"no component 'unet'; it has: .*transformer"):
        model.component_config("unet")


@pytest.mark.parametrize("weights", ["/no/such/folder", "./nowhere", "justname", "a/b/c"])
def test_what_is_neither_folder_nor_id(weights):
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        read_model(weights)


def test_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        read_model(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_model(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="names no pipeline class"):
        read_model(str(tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_takes_class_dtype_and_device_from_folder_and_plan(flux, dtype):
    import torch
    from diffusers import FluxPipeline

    pipeline = load(flux, dtype=dtype)
    assert type(pipeline) is FluxPipeline
    for module in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        assert {p.dtype for p in module.parameters()} == {getattr(torch, dtype)}
        assert {p.device.type for p in module.parameters()} == {"cpu"}
        assert not module.training


def test_missing_files_are_named(copy):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(UserError, match=r"lacks .*tokenizer/.*vae/\*\.safetensors"):
        load(copy)


def test_missing_shard_is_named(copy):
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"x": "part-00002-of-00002.safetensors"}}))
    with pytest.raises(UserError, match="transformer/part-00002-of-00002"):
        load(copy)
    path.rename(path.with_name("diffusion_pytorch_model.safetensors.index.fp16.json"))
    load(copy)  # the shards of a variant that is not asked for may be absent


def as_pickle(copy):
    """The transformer's weights as torch.save writes them."""
    import torch
    from safetensors.torch import load_file

    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def test_pickles_only_when_allowed(copy):
    as_pickle(copy)
    with pytest.raises(UserError, match=r"pickled weights .*--allow_pickle"):
        load(copy)
    assert load(copy, allow_pickle=True).transformer is not None


def test_code_only_when_trusted(copy):
    (copy / "transformer" / "evil.py").write_text("raise SystemExit('ran')")
    edit_index(copy, transformer=["evil", "Model"])
    with pytest.raises(UserError, match=r"own code \(transformer\).*--trust_remote_code"):
        load(copy)
    edit_index(copy, transformer=["diffusers", "FluxTransformer2DModel"], _class_name=["pipeline", "Mine"])
    with pytest.raises(UserError, match="its pipeline class"):
        load(copy)


def test_safety_checker_is_left_out(copy):
    edit_index(copy, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    model = read_model(str(copy))
    assert model.left_out == ("safety_checker",)
    model.check(variant=None, allow_pickle=False, trust_remote_code=False)  # its folder may be absent


HUB = "https://hub.example/api/models/owner/name"


def hub_error(kind, status):
    import httpx
    from huggingface_hub import errors

    response = httpx.Response(status, request=httpx.Request("GET", HUB))
    return getattr(errors, kind)("said the hub", response=response)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("GatedRepoError", 403, r"gated: accept its licence at https://\S+/owner/name, then set HF_TOKEN"),
        ("RepositoryNotFoundError", 404, "not on the hub, or is private; check the id"),
        ("RevisionNotFoundError", 404, "has no revision 'v9'"),
        ("RemoteEntryNotFoundError", 404, "not in diffusers' format"),
        ("HfHubHTTPError", 500, "refused owner/name: said the hub; try again later"),
    ],
)
def test_hub_errors_say_what_to_do(kind, status, words):
    try:  # as diffusers does it: the hub's refusal is the cause of a vague OSError
        raise OSError("Cannot load model") from hub_error(kind, status)
    except OSError as error:
        line = explain(error, "owner/name", "v9")
    assert isinstance(line, UserError)
    assert "\n" not in str(line)
    assert re.search(words, str(line)), line


ASK = """
import time; time.sleep = lambda s: None  # the client tries a silent hub again after seconds
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.errors import UserError
try: read_model('owner/name', 'v9')
except UserError as error: print(error)
"""


def ask_hub(tmp_path, **env):
    """The real client in a process of its own: it reads its settings as it is imported."""
    env = {"HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **env}
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_offline_and_not_in_cache(tmp_path):
    line = ask_hub(tmp_path, HF_HUB_OFFLINE="1")
    assert "not in the local cache and the hub cannot be reached" in line


def test_no_network_is_one_line(tmp_path):
    line = ask_hub(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "not in the local cache and the hub cannot be reached" in line


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", "accept its licence at {hub}/owner/name, then set HF_TOKEN"),
        (401, "RepoNotFound", "not on the hub, or is private; check the id, or set HF_TOKEN"),
        (404, "RevisionNotFound", "has no revision 'v9'"),
        (404, "EntryNotFound", "not in diffusers' format"),
    ],
)
def test_what_the_hub_refuses(tmp_path, model_hub, status, code, words):
    with model_hub("owner/name", {}) as hub:
        hub.status, hub.error = status, code
        assert words.format(hub=hub.url) in ask_hub(tmp_path, HF_ENDPOINT=hub.url)


def test_the_files_of_one_model_on_the_hub_are_of_one_commit(tmp_path, model_hub):
    index = {"_class_name": "X", "unet": ["diffusers", "Y"]}
    files = {"model_index.json": json.dumps(index).encode(), "unet/config.json": b"{}"}
    code = (
        "from mlenergy.diffusion.models.hub import read_model; "
        "read_model('owner/name').component_config('unet')"
    )
    with model_hub("owner/name", files) as hub:
        env = {"HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HF_ENDPOINT": hub.url}
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
    asked = {request.split("/resolve/")[1].split()[0] for request in hub.requests if "/resolve/" in request}
    assert asked == {"main/model_index.json", f"{SHA}/unet/config.json"}


class OneRank:
    """A cluster of one; the real one of several ranks is in test_loading_ranks."""

    rank = SimpleNamespace(rank=0, local_rank=0, is_main=True)

    def all_gather_object(self, value):
        return [value]


def test_locate_returns_the_folder_or_the_reason(flux, copy):
    assert locate(plan_for(flux), OneRank()).path == flux
    shutil.rmtree(copy / "vae")
    with pytest.raises(UserError, match="lacks vae/"):
        locate(plan_for(copy), OneRank())


def test_the_index_is_read_once_on_the_way_to_a_pipeline(flux, monkeypatch):
    from mlenergy.diffusion.models import hub
    from mlenergy.diffusion.weights.pipeline import load

    read, files = hub._read_object, []
    monkeypatch.setattr(hub, "_read_object", lambda path, of: files.append(path.name) or read(path, of))
    plan = plan_for(flux)
    load(locate(plan, OneRank()), plan, "cpu")
    assert files == ["model_index.json"]


def test_random_weights_of_a_known_architecture_need_no_folder():
    plan = plan_for("black-forest-labs/FLUX.1-dev")
    plan.weights = "random"
    assert locate(plan, OneRank()) is None


def test_variant_that_is_not_there(flux):
    with pytest.raises(UserError, match=r"variant=fp16.*no such modeling files"):
        load(flux, variant="fp16")


def test_variant_is_taken_where_it_is(copy):
    import torch
    from safetensors.torch import load_file, save_file

    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["proj_out.bias"] = torch.full_like(weights["proj_out.bias"], 3.0)
    save_file(weights, path.with_name("diffusion_pytorch_model.fp16.safetensors"), {"format": "pt"})
    assert not (load(copy).transformer.proj_out.bias == 3).any()
    assert (load(copy, variant="fp16").transformer.proj_out.bias == 3).all()
