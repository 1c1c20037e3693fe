"""FLUX.2, Qwen-Image and Z-Image: what their files decide, what their plans refuse, what their runs count."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from result_samples import gpu_measurement

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.cost.size import MEMORY_NOTE, TEXT_NOTE, size_plan
from mlenergy.diffusion.engines.call import call_arguments, call_facts
from mlenergy.diffusion.measure.samples import DenoiserWork
from mlenergy.diffusion.measure.stages import _latents_of, _text_tokens_of
from mlenergy.diffusion.models.facts import latent_channels, latent_factor
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.efficiency import efficiency_section
from mlenergy.diffusion.results.executed import PlannedWork, executed_section, planned_work, text_that_ran

QWEN, KLEIN, DEV, Z_IMAGE = "tiny/qwen-image", "tiny/flux2-klein", "tiny/flux2", "tiny/z-image"
KLEIN_4B, TURBO = "black-forest-labs/FLUX.2-klein-4B", "Tongyi-MAI/Z-Image-Turbo"


def plan_of(model, degrees=None, engine="diffusers", **changes):
    args = BenchmarkArgs(TextToImage(model_id=model, dataset="bundled"), engine="diffusers", device="cpu")
    plan = make_plan(args, resolve_model(model), 1, "cpu", "cpu")
    return replace(plan, engine=engine, parallel=degrees or Parallelism(), **changes)


@pytest.mark.parametrize(
    ("model", "degrees", "engine", "changes"),
    [
        (QWEN, Parallelism(ulysses=2, ring=2), "xdit", {}),
        (QWEN, Parallelism(cfg=2), "xdit", {"batch_size": 4}),
        (QWEN, Parallelism(ulysses=2), "diffusers", {"batch_size": 4}),
        (QWEN, Parallelism(data=2, ulysses=2), "xdit", {"batch_size": 2}),
        (Z_IMAGE, Parallelism(ulysses=2), "xdit", {"guidance_scale": 0.0}),
        (Z_IMAGE, Parallelism(cfg=2, ulysses=2), "xdit", {"guidance_scale": 0.5}),
        (TURBO, Parallelism(ulysses=2), "xdit", {}),
        (DEV, Parallelism(ulysses=2), "xdit", {"max_sequence_length": 63}),
        (KLEIN, Parallelism(ulysses=2), "diffusers", {"max_sequence_length": 63}),
    ],
)
def test_what_runs_is_not_refused(model, degrees, engine, changes):
    assert reasons(plan_of(model, degrees, engine, **changes)) == []


@pytest.mark.parametrize(
    ("model", "degrees", "engine", "changes", "line"),
    [
        (QWEN, Parallelism(ulysses=2), "xdit", {"batch_size": 2}, "padding of qwen-image's.*batch_size 1"),
        (QWEN, Parallelism(ring=2), "diffusers", {"batch_size": 2}, "padding of qwen-image's"),
        (QWEN, Parallelism(ulysses=2, ring=2), "diffusers", {}, "as long as the prompt.*--engine xdit"),
        (QWEN, Parallelism(pipefusion=2), "xdit", {}, "xfuser has no pipeline of it"),
        (Z_IMAGE, Parallelism(ulysses=2), "xdit", {}, "the prompt and the negative one differ.*use_cfg_par"),
        (
            Z_IMAGE,
            Parallelism(ring=3),
            "xdit",
            {"height_px": 240},
            "multiple of 32 .*product of 1, 2, 4, 8, 16",
        ),
        (Z_IMAGE, Parallelism(cfg=2), "diffusers", {"guidance_scale": 0.0}, "guidance_scale above 0"),
        (KLEIN, Parallelism(ulysses=2), "xdit", {"max_sequence_length": 63}, "63 text tokens.*length 62"),
        (KLEIN, Parallelism(), "diffusers", {"negative_prompt": "grey"}, "takes no negative prompt"),
        (KLEIN, Parallelism(pipefusion=2), "xdit", {}, "runs no guidance"),
        (DEV, Parallelism(ulysses=2, parallel_vae=True), "xdit", {}, "it hangs in xfuser's pipeline"),
        (DEV, Parallelism(cfg=2), "diffusers", {}, "no step has two halves"),
        (
            DEV,
            Parallelism(ulysses=2, pipefusion=2),
            "xdit",
            {},
            "crashes on flux2.*pipeline_patch 1",
        ),
    ],
)
def test_what_would_be_wrong_or_hang_is_refused(model, degrees, engine, changes, line):
    (found, *_) = reasons(plan_of(model, degrees, engine, **changes))
    assert re.search(line, found), found


def test_a_distilled_klein_takes_no_guidance_and_says_so():
    spec = resolve_model(KLEIN_4B)
    assert (spec.guidance, spec.default_guidance_scale) == ("none", None)
    assert "guidance_scale" not in call_arguments(plan_of(KLEIN_4B))


def test_qwen_images_guidance_has_its_own_name_and_needs_a_negative_prompt():
    arguments = call_arguments(plan_of(QWEN, batch_size=2))
    assert arguments["true_cfg_scale"] == 4.0 and "guidance_scale" not in arguments
    assert arguments["negative_prompt"] == [" ", " "]
    assert "negative_prompt" not in call_arguments(plan_of(QWEN, guidance_scale=1.0))
    assert call_arguments(plan_of(QWEN, negative_prompt="grey"))["negative_prompt"] == ["grey"]
    assert "negative_prompt" not in call_arguments(plan_of(KLEIN))


@pytest.mark.parametrize(
    ("model", "scale", "cfg", "calls"),
    [(QWEN, 4.0, 1, 2), (QWEN, 4.0, 2, 1), (QWEN, 1.0, 1, 1), (Z_IMAGE, 4.0, 1, 1), (DEV, 4.0, 1, 1)],
)
def test_calls_of_the_denoiser_in_a_step(model, scale, cfg, calls):
    plan = plan_of(model, Parallelism(cfg=cfg), guidance_scale=scale)
    assert plan.denoiser_calls_each_step == calls

    class Scheduler:
        config = type("Config", (), {"use_dynamic_shifting": False})
        timesteps: tuple[int, ...] = ()

        def set_timesteps(self, steps):
            self.timesteps = tuple(range(steps))

    assert call_facts(plan, Scheduler())["denoiser_calls"] == calls * plan.steps


def windows(calls, text):
    work = DenoiserWork(calls, calls, 0, text or None)
    return [replace(one, denoiser=(work,)) for one in gpu_measurement().iterations]


def test_two_calls_a_step_are_the_arithmetic_of_one_step():
    """Counted as steps they would double the FLOPs."""
    plan = plan_of(QWEN)
    calls = 2 * plan.steps
    found = efficiency_section(plan, windows(calls, 20 * calls), planned=PlannedWork(calls))
    expected = flops_of(plan, text_tokens=20)
    assert expected.steps == plan.steps
    assert found["tflops_per_iteration"] * 1e12 == pytest.approx(expected.total)
    section = executed_section(plan, PlannedWork(calls), windows(calls, 20 * calls))
    assert "with the prompt and without it" in section["explanation"]
    assert planned_work(plan, calls, "Euler").elements == 16 * 32 * 32  # of one call, not of both


def test_text_is_counted_as_it_ran():
    plan = plan_of(QWEN)
    assert text_that_ran(plan, windows(8, 8 * 20)) == 20
    assert text_that_ran(plan_of(DEV), windows(8, 8 * 20)) is None, "its texts have one length"
    few, many = (flops_of(plan, text_tokens=tokens) for tokens in (20, 40))
    assert many.denoise_step > few.denoise_step and many.text_encode > few.text_encode
    unseen = efficiency_section(plan, windows(8, 0), planned=PlannedWork(8))
    assert unseen["tflops_per_iteration"] is None and "as long as the prompt" in unseen["reason"]


def test_z_images_text_is_padded_to_32_in_the_denoiser_and_whole_in_the_encoder():
    plan = plan_of(Z_IMAGE)
    one, full, more = (flops_of(plan, text_tokens=tokens) for tokens in (1, 32, 33))
    assert one.denoise_step == full.denoise_step < more.denoise_step
    assert one.text_encode == more.text_encode


def test_a_plan_says_that_it_assumes_a_length():
    assert size_plan(plan_of(QWEN)).notes == (MEMORY_NOTE, TEXT_NOTE)
    assert size_plan(plan_of(DEV)).notes == (MEMORY_NOTE,)


def test_a_vae_of_videos_names_its_factor_and_channels_otherwise():
    config = {"temperal_downsample": [False, True, True], "z_dim": 16}
    assert (latent_factor(config), latent_channels(config)) == (8, 16)
    assert latent_channels({"latent_channels": 4}) == 4 and latent_channels({}) is None


def test_rows_in_lists_and_texts_are_seen():
    import torch

    rows = [torch.zeros(16, 1, 8, 8), torch.zeros(16, 1, 8, 8)]
    texts = [torch.zeros(5, 4), torch.zeros(7, 4)]
    assert sum(n for _, n in _latents_of((rows, torch.ones(2), texts), {})) == 2
    assert _text_tokens_of((rows, torch.ones(2), texts), {}) == 12
    assert _text_tokens_of((), {"encoder_hidden_states": torch.zeros(2, 9, 4)}) == 18
    assert _text_tokens_of((rows,), {}) == 0


def test_the_preamble_of_qwen_image_is_34_tokens_also_in_a_tiny_vocabulary():
    from diffusers import QwenImagePipeline

    from mlenergy.diffusion.models.architectures.reader import Tokenizer, architecture
    from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

    pipeline = QwenImagePipeline.__new__(QwenImagePipeline)
    pipeline.register_modules = lambda **_: None
    QwenImagePipeline.__init__(pipeline, None, None, None, None, None)
    before = pipeline.prompt_template_encode.partition("{}")[0]
    for vocabulary in (architecture(QWEN).tokenizers["tokenizer"].vocabulary, 30_000):
        wanted = Tokenizer("tokenizer", "transformers.Qwen2Tokenizer", vocabulary, 1024)
        tokenizer = build_tokenizer(wanted)
        assert len(tokenizer) == vocabulary
        assert len(tokenizer(before).input_ids) == pipeline.prompt_template_encode_start_idx


def test_the_preamble_of_hunyuan_video_is_as_long_as_its_pipeline_cuts_off():
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE as TEMPLATE

    from mlenergy.diffusion.models.architectures.reader import architecture
    from mlenergy.diffusion.models.listed import BY_ID
    from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

    model = "tiny/hunyuanvideo"
    wanted = architecture(model).tokenizers["tokenizer"]
    tokenizer = build_tokenizer(wanted)
    before = tokenizer(TEMPLATE["template"].partition("{}")[0]).input_ids
    assert len(tokenizer) == wanted.vocabulary
    assert len(before) == TEMPLATE["crop_start"] == BY_ID[model].family.template_tokens[0]
