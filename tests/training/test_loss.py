"""The loss against its formula, what is random in it, and what it trains."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from mlenergy.diffusion.dataset.folder import read_images
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.training.loss import NoiseLoss
from mlenergy.diffusion.training.options import FinetuneArgs
from mlenergy.diffusion.training.samples import draw, image_of
from mlenergy.diffusion.training.trainer import Trainer, learning_rate
from mlenergy.diffusion.weights.peft_adapter import merge_peft
from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

CPU = torch.device("cpu")
SHAPE = (4, 8, 8)


@pytest.fixture
def loss():
    pipeline = build_random_pipeline("tiny/pixart-alpha", CPU, torch.float32)
    return NoiseLoss.of(pipeline, 64, 64, 20)


@pytest.fixture
def trainer(pictures):
    made = []

    def make(loss, precision="no", **options):
        words = {"model_id": "tiny/pixart-alpha", "dataset": pictures, "out": pictures, "learning_rate": 1e-2}
        args = FinetuneArgs(**(words | options))
        images = read_images(pictures)
        made.append(Trainer(args, loss.pipeline, loss, images, Cluster(Rank(), CPU, None), precision))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Recorder:
    """A denoiser that notes what it is given, and predicts what it is told."""

    def __init__(self, predicts):
        self.predicts = predicts

    def __call__(self, noisy, **options):
        self.noisy, self.options = noisy, options
        return (self.predicts,)


def draws_of(*numbers, share=0.0):
    return [draw(3, number, SHAPE, 1000, share) for number in numbers]


def test_the_loss_is_the_error_of_the_predicted_noise_alone(loss, pictures):
    files, draws = [pictures / "0.png", pictures / "1.png"], draws_of(0, 1)
    noise = torch.stack([one.noise for one in draws])
    variance = torch.full_like(noise, 1e6)  # learned beside the noise, and not trained here
    exact = Recorder(torch.cat([noise, variance], dim=1))
    assert loss(exact, files, ["one", "two"], draws) == 0
    half = Recorder(torch.cat([noise + 0.5, variance], dim=1))
    assert loss(half, files, ["one", "two"], draws) == pytest.approx(0.25)
    # x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise, with the linear betas that PixArt was trained with.
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    latents = loss.latents(files, draws)
    for row, one in enumerate(draws):
        kept, added = math.sqrt(abar[one.timestep]), math.sqrt(1 - abar[one.timestep])
        assert torch.allclose(exact.noisy[row], kept * latents[row] + added * one.noise, atol=1e-4)
    assert exact.options["timestep"].tolist() == [one.timestep for one in draws]
    assert exact.options["added_cond_kwargs"]["resolution"].tolist() == [[64, 64]] * 2


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_prediction_types_have_their_target(loss, pictures, kind):
    scheduler = DDPMScheduler.from_config(loss.scheduler.config, prediction_type=kind)
    loss, (one,) = replace(loss, scheduler=scheduler), draws_of(0)
    latents = loss.latents([pictures / "0.png"], [one])
    abar = float(scheduler.alphas_cumprod[one.timestep])
    velocity = math.sqrt(abar) * one.noise - math.sqrt(1 - abar) * latents
    assert (
        loss(Recorder(latents if kind == "sample" else velocity), [pictures / "0.png"], ["one"], [one]) < 1e-9
    )


def test_latents_are_the_scaled_ones_that_the_pipeline_decodes(loss, pictures):
    vae = loss.pipeline.vae
    (one,) = draws_of(0)
    with Image.open(pictures / "2.png") as image:
        pixels = loss.pipeline.image_processor.preprocess(image.convert("RGB"))
    moments = vae.encode(pixels).latent_dist
    expected = (moments.mean + torch.exp(0.5 * moments.logvar) * one.latent_noise) * vae.config.scaling_factor
    assert torch.allclose(loss.latents([pictures / "2.png"], [one]), expected, atol=1e-4)


def test_dropped_captions_are_the_empty_one(loss, pictures, monkeypatch):
    texts = []
    encode = loss.pipeline.encode_prompt

    def noted(prompts, **options):
        texts.extend(prompts)
        return encode(prompts, **options)

    monkeypatch.setattr(loss.pipeline, "encode_prompt", noted)
    draws = draws_of(*range(40), share=0.25)
    predicts = Recorder(torch.zeros(40, 8, 8, 8))
    loss(predicts, [pictures / "0.png"] * 40, ["caption"] * 40, draws)
    assert texts == ["" if one.drops_caption else "caption" for one in draws]
    assert not any(one.drops_caption for one in draws_of(*range(200)))
    dropped = sum(one.drops_caption for one in draws_of(*range(2000), share=0.25))
    assert 400 < dropped < 600


def test_each_epoch_shows_each_image_once_and_every_sample_has_its_own_noise():
    for epoch in range(3):
        assert Counter(image_of(1, epoch * 7 + place, 7) for place in range(7)) == Counter(range(7))
    assert [image_of(1, k, 50) for k in range(50)] != [image_of(1, k, 50) for k in range(50, 100)]
    one, other = draws_of(5, 6)
    assert not torch.equal(one.noise, other.noise) and not torch.equal(one.noise, one.latent_noise)
    timesteps = [one.timestep for one in draws_of(*range(500))]
    assert min(timesteps) < 50 and max(timesteps) > 949 and abs(sum(timesteps) / 500 - 500) < 50


def test_gradients_reach_the_lora_alone(loss, trainer):
    pipeline = loss.pipeline
    before = {
        f"{name}.{key}": tensor.clone()
        for name, part in (("transformer", pipeline.transformer), ("vae", pipeline.vae))
        for key, tensor in part.state_dict().items()
    }
    before |= {f"text_encoder.{k}": v.clone() for k, v in pipeline.text_encoder.state_dict().items()}
    training = trainer(loss, batch_size=2, targets=("to_q", "to_v"))
    layers = 4 * 2 * 2  # blocks, attentions, targets
    assert len(training.trainable) == 2 * layers
    first = [parameter.detach().clone() for parameter in training.trainable]
    training.train(training.batch(0, 3))
    assert len(training.curve) == 3 and training.failure is None
    assert all(not torch.equal(a, b) for a, b in zip(first, training.trainable, strict=True))
    after = {}
    for name in ("transformer", "vae", "text_encoder"):
        for key, tensor in getattr(pipeline, name).state_dict().items():
            if "lora_" not in key:
                after[f"{name}.{key.replace('.base_layer', '')}"] = tensor
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    frozen = [p for p in pipeline.transformer.parameters() if not p.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)


def test_accumulated_gradients_are_those_of_a_larger_batch(loss, trainer):
    whole = trainer(loss, batch_size=4)
    whole.train(whole.batch(0, 3))
    parts = trainer(fresh(), batch_size=1, gradient_accumulation=4)
    parts.train(parts.batch(0, 3))
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert (one.loss, one.grad_norm) == pytest.approx((other.loss, other.grad_norm), rel=1e-3)


def fresh(dtype=torch.float32):
    return NoiseLoss.of(build_random_pipeline("tiny/pixart-alpha", CPU, dtype), 64, 64, 20)


def test_a_saved_state_goes_on_exactly_and_its_adapter_is_what_was_trained(loss, trainer, tmp_path):
    whole = trainer(loss, batch_size=2)
    whole.train(whole.batch(0, 4))
    begun = trainer(fresh(), batch_size=2)
    begun.train(begun.batch(0, 2))
    begun.save_state(tmp_path)
    resumed_loss = fresh()
    resumed = trainer(resumed_loss, batch_size=2)
    resumed.load_state(tmp_path)
    resumed.train(resumed.batch(2, 4))
    assert [*begun.curve, *resumed.curve] == whole.curve
    assert all(torch.equal(a, b) for a, b in zip(whole.trainable, resumed.trainable, strict=True))
    whole.save_adapter(tmp_path)
    merged = fresh().pipeline
    assert merge_peft(merged, str(tmp_path)) is None
    with torch.no_grad():
        one = draws_of(0)[0].noise[None]
        embeds, mask, *_ = merged.encode_prompt(["text"], False, max_sequence_length=20)
        size = {"resolution": torch.tensor([[64.0, 64.0]]), "aspect_ratio": torch.tensor([[1.0]])}
        given = {"encoder_hidden_states": embeds, "encoder_attention_mask": mask, "added_cond_kwargs": size}
        given |= {"timestep": torch.tensor([500]), "return_dict": False}
        outputs = [part.transformer(one, **given)[0] for part in (merged, loss.pipeline, fresh().pipeline)]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-2)


def test_activations_that_are_computed_again_and_16_bits_train_the_same(loss, trainer):
    plain = trainer(loss, batch_size=2)
    plain.train(plain.batch(0, 3))
    again = trainer(fresh(), batch_size=2, gradient_checkpointing=True)
    again.train(again.batch(0, 3))
    assert [step.loss for step in again.curve] == pytest.approx([step.loss for step in plain.curve], rel=1e-5)
    plain.close()  # accelerate keeps one precision for the whole process
    half = trainer(fresh(torch.bfloat16), "bf16", batch_size=2)
    half.train(half.batch(0, 3))
    assert all(parameter.dtype == torch.float32 for parameter in half.trainable)
    assert [step.loss for step in half.curve] == pytest.approx([step.loss for step in plain.curve], rel=0.05)


def test_a_loss_that_is_not_finite_leaves_the_weights_alone(loss, trainer, monkeypatch):
    training = trainer(loss)
    training.train(training.batch(0, 1))
    before = [parameter.detach().clone() for parameter in training.trainable]
    monkeypatch.setattr(NoiseLoss, "target", lambda *_: torch.full((1, *SHAPE), math.nan))
    training.train(training.batch(1, 4))
    assert training.failure == "the loss of step 2 is nan" and len(training.curve) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, training.trainable, strict=True))


def test_targets_that_name_no_layer_are_refused(loss, trainer):
    with pytest.raises(UserError, match=r"--targets to_nowhere: .*; name layers of it"):
        trainer(loss, targets=("to_nowhere",))


def test_learning_rates():
    args = SimpleNamespace(learning_rate=2.0, lr_warmup_steps=4, lr_schedule="constant", steps=12)
    assert [learning_rate(args, step) for step in (0, 1, 3, 4, 11)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    args.lr_schedule = "linear"
    assert [learning_rate(args, step) for step in (4, 8)] == [2.0, 1.0]
    args.lr_schedule = "cosine"
    assert [learning_rate(args, step) for step in (4, 8)] == pytest.approx([2.0, 1.0])
    assert learning_rate(args, 11) < 0.1
