"""What a plan needs: weights by rank, stages, bytes sent, combinations of degrees."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.communication import communication_of
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.shape import shape_of
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.models.architectures.reader import architecture, counted_ids
from mlenergy.diffusion.models.spec import Family

FLUX = "black-forest-labs/FLUX.1-dev"
SD3 = "stabilityai/stable-diffusion-3-medium-diffusers"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SIGMA = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
GIB = 1 << 30


def test_flux_at_1024_on_one_gpu(plan_of):
    found = size_plan(plan_of(FLUX, inference_steps=50), gpu_memory_gib=80)
    assert found.tflops["denoise"] == pytest.approx(3719, rel=0.01)
    assert found.tflops["total"] == pytest.approx(3734.6, rel=0.001)  # text and decode on top
    weights = found.own.memory.parameter_bytes
    assert weights["transformer"] == 2 * 11_901_408_320
    assert weights["text_encoder_2"] == 2 * 4_762_310_656
    assert found.own.memory.peak_stage == "vae_decode"
    assert 32 * GIB < found.own.memory.peak_bytes < 34 * GIB
    assert found.own.memory.fits is True
    assert found.own.communication.total_bytes == 0


@pytest.mark.parametrize("model_id", counted_ids())
def test_every_shipped_architecture_can_be_sized_for_two_processes(plan_of, model_id):
    found = size_plan(plan_of(model_id, batch_size=2), processes=2)
    assert found.combinations and found.tflops["total"] > 0
    for way in found.combinations:
        assert way.communication.total_bytes > 0 or way.parallel.data == 2


@pytest.mark.parametrize(("gib", "fits"), [(24, False), (33, False), (48, True), (None, None)])
def test_whether_it_fits(plan_of, gib, fits):
    assert size_plan(plan_of(FLUX), gpu_memory_gib=gib).own.memory.fits is fits


def test_float16_keeps_part_of_t5_in_float32(plan_of):
    plan = plan_of(SIGMA)
    assert plan.dtype == "float16"
    held = size_plan(plan).own.memory.parameter_bytes["text_encoder"]
    assert held == 2 * 4_762_310_656 + 2 * 24 * 10240 * 4096


def test_sdxl_decodes_in_float32_where_its_dtype_is_float16(plan_of):
    half = size_plan(plan_of(SDXL)).own.memory.activation_bytes["vae_decode"]
    brain = size_plan(plan_of(SDXL, dtype="bfloat16")).own.memory.activation_bytes["vae_decode"]
    assert half > 1.9 * brain
    assert size_plan(plan_of(SDXL)).own.memory.parameter_bytes["vae"] == 2 * 83_653_863


@pytest.mark.parametrize(("held", "like"), [("float32", "float32"), ("float16", "bfloat16")])
def test_a_vae_in_a_type_of_its_own_is_counted_in_it(plan_of, held, like):
    plan = plan_of(SDXL)
    own = size_plan(replace(plan, optimizations=Optimizations(vae_dtype=held))).own.memory
    same = size_plan(plan_of(SDXL, dtype=like)).own.memory
    assert own.parameter_bytes["vae"] == same.parameter_bytes["vae"]
    assert own.parameter_bytes["unet"] == size_plan(plan).own.memory.parameter_bytes["unet"]
    assert own.activation_bytes["vae_decode"] == same.activation_bytes["vae_decode"]


def test_batch_and_groups_scale_the_stages(plan_of):
    one = size_plan(plan_of(FLUX)).own
    four = size_plan(plan_of(FLUX, batch_size=4)).own
    assert four.memory.activation_bytes["vae_decode"] == 4 * one.memory.activation_bytes["vae_decode"]
    assert four.tflops_per_rank == pytest.approx(4 * one.tflops_per_rank)
    grouped = _own(plan_of(FLUX, batch_size=4), data=4)
    assert grouped.memory.activation_bytes == one.memory.activation_bytes
    assert grouped.tflops_per_rank == pytest.approx(one.tflops_per_rank)


def test_who_holds_which_weights(plan_of):
    plan = plan_of(FLUX)
    whole = size_plan(plan).own.memory.parameter_bytes
    for mode in ({"ulysses": 4}, {"ring": 4}, {"cfg": 2}, {"data": 4}):
        assert _own(plan, **mode).memory.parameter_bytes == whole
    blocks = 2 * costs_of(architecture(FLUX))["transformer"].block_parameters
    for mode in ({"pipefusion": 4}, {"tensor": 4}):
        split = _own(plan, **mode).memory.parameter_bytes
        assert split["transformer"] == pytest.approx(whole["transformer"] - 0.75 * blocks)
        assert split["text_encoder_2"] == whole["text_encoder_2"]


def test_what_pipefusion_caches_shows(plan_of):
    alone, staged = size_plan(plan_of(FLUX)).own, _own(plan_of(FLUX), pipefusion=2)
    keys_and_values = 2 * (4096 + 512) * 3072 * 2 * 57 / 2
    grown = staged.memory.activation_bytes["denoise"] - alone.memory.activation_bytes["denoise"]
    assert grown == pytest.approx(keys_and_values)


def test_bytes_sent_by_mode(plan_of):
    """FLUX by hand: 57 attentions over 4096 + 512 tokens of width 3072, two bytes each."""
    plan = plan_of(FLUX)
    tensor = 4608 * 3072 * 2
    layers = 57 * tensor

    def sent(**degrees):
        parallel = Parallelism(**degrees)
        shape = shape_of(replace(plan, parallel=parallel), architecture(FLUX))
        return communication_of(shape, parallel, "bfloat16")

    assert sent().total_bytes == 0
    assert sent(ulysses=4).ulysses_bytes == 4 * layers / 4 * 3 / 4
    assert sent(ring=4).ring_bytes == 2 * layers / 4 * 3
    both = sent(ulysses=2, ring=2)
    assert both.ulysses_bytes == 4 * layers / 4 / 2
    assert both.ring_bytes == 2 * layers / 4
    assert sent(pipefusion=4).pipefusion_bytes == tensor
    staged = sent(pipefusion=2, ulysses=2)  # each stage runs half of the layers
    assert staged.ulysses_bytes == sent(ulysses=2).ulysses_bytes / 2
    assert staged.pipefusion_bytes == tensor / 2
    assert sent(tensor=4).tensor_bytes == 2 * 1.5 * layers
    assert sent(data=4).total_bytes == 0
    assert sent(ulysses=2).gather_bytes == 128 * 128 * 16 * 2 / 2


def test_cfg_sends_only_the_prediction(plan_of):
    plan = plan_of(SD3)
    found = _own(plan, cfg=2).communication
    assert found.total_bytes == found.cfg_bytes == 128 * 128 * 16 * 2
    assert _own(plan, cfg=2).tflops_per_rank < 0.6 * size_plan(plan).own.tflops_per_rank


def test_sd35_attends_twice_in_its_dual_layers(plan_of):
    medium = "stabilityai/stable-diffusion-3.5-medium"
    attention = shape_of(plan_of(medium), architecture(medium)).attention
    assert (attention.width, attention.joint_layers, attention.image_layers) == (1536, 24, 13)


def test_combinations_are_those_that_the_plan_lets_through(plan_of):
    found = size_plan(plan_of(FLUX), processes=4)
    shown = {(way.parallel.ulysses, way.parallel.ring) for way in found.combinations if way.engine == "xdit"}
    assert {(4, 1), (2, 2), (1, 4)} <= shown
    assert all(way.parallel.world_size == 4 for way in found.combinations)
    assert all(way.parallel.cfg == 1 for way in found.combinations)  # FLUX has no guidance batch
    assert all(way.parallel.data == 1 for way in found.combinations)  # one image
    best = found.combinations[0]
    assert best.communication.total_bytes <= found.combinations[1].communication.total_bytes
    odd = size_plan(plan_of(FLUX), processes=5)
    assert all(way.parallel.ulysses == 1 for way in odd.combinations)  # 24 heads


def test_groups_come_first_where_the_batch_allows_them(plan_of):
    plan = _with_all_modes(plan_of(SD3, batch_size=4))
    found = size_plan(plan, processes=4)
    assert found.combinations[0].parallel.data == 4
    alone = size_plan(_with_all_modes(plan_of(SD3)), processes=4)
    assert alone.combinations[0].parallel.cfg == 2
    assert not alone.combinations[0].approximate
    assert alone.combinations[-1].approximate


def test_what_does_not_fit_comes_last(plan_of):
    plan = _with_all_modes(plan_of(FLUX))
    found = size_plan(plan, processes=4, gpu_memory_gib=24)
    fits = [way.memory.fits for way in found.combinations]
    assert True in fits and False in fits
    assert fits == sorted(fits, reverse=True)


def test_a_decoder_in_tiles_takes_less_memory_and_more_work(plan_of):
    wan = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
    whole, tiled = (size_plan(plan_of(wan, *words)) for words in ((), ("--vae_tiling",)))
    peaks = [one.own.memory.activation_bytes["vae_decode"] / GIB for one in (whole, tiled)]
    assert peaks == [pytest.approx(9.12, rel=0.01), pytest.approx(1.52, rel=0.01)]
    # 160 x 90 cells in tiles of 32 at every 24: seven of them hold 6 x 32 + 16, four 3 x 32 + 18.
    ratio = (6 * 32 + 16) * (3 * 32 + 18) / (160 * 90)
    assert f"each frame in 28 tiles that overlap: {ratio:.3g} times the cells" in tiled.notes[1]
    assert len(whole.notes) == 1 and tiled.own.memory.leaves_out == ()
    (_, note) = size_plan(plan_of(wan, "--layerwise_fp8")).notes
    assert note.startswith("with --layerwise_fp8 it takes less")


def test_json(plan_of):
    text = json.dumps(size_plan(plan_of(FLUX), processes=2, gpu_memory_gib=80).as_dict())
    data = json.loads(text)
    assert data["memory"]["fits"] is True
    assert data["combinations"][0]["communication_per_step"]["total_bytes"] > 0
    assert "estimate" in data["notes"][0]


def test_no_torch_and_well_within_five_seconds():
    code = """
import sys, time
begun = time.monotonic()
from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.size import size_plan
args = parse_args(["workload:text-to-image", "--workload.model_id", "black-forest-labs/FLUX.1-dev"], "test")
plan = make_plan(args, resolve_model(args.workload.model_id), 1, "cuda", "NVIDIA H200")
print(len(size_plan(plan, processes=64).combinations), time.monotonic() - begun, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ways, seconds, torch = done.stdout.split()
    assert int(ways) > 0 and torch == "False"
    assert float(seconds) < 5


def _own(plan, **degrees):
    return size_plan(replace(plan, parallel=Parallelism(**degrees)), processes=1).own


def _with_all_modes(plan):
    """The plan as if its engine offered every mode, so that the order is tested and not the offer."""
    every = frozenset({"ulysses", "ring", "cfg", "data", "pipefusion", "tensor"})
    family = replace(plan.spec.family, modes={"xdit": every})
    assert isinstance(family, Family)
    return replace(plan, spec=replace(plan.spec, family=family))
