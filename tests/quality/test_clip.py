"""CLIP score against raw outputs of transformers, and against torchmetrics."""

import numpy as np
import pytest
import torch
from extractors import pictures, save_run, small_clip
from torchmetrics.functional.multimodal import clip_score

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.clip import load_clip
from mlenergy.diffusion.quality.evaluate import Extractors
from mlenergy.diffusion.results.quality import compute
from mlenergy.diffusion.results.read import read_result

IMAGES = pictures(3, 0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_clip(tmp_path_factory.mktemp("clip") / "model")


def model_of(folder):
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)


def by_logits(folder, image, text):
    """The model's own product of both embeddings, which it scales."""
    model, tokenizer, processor = model_of(folder)
    words = tokenizer(text, return_tensors="pt", truncation=True, max_length=16)
    with torch.no_grad():
        outputs = model(**words, **processor(images=image, return_tensors="pt"))
    return float(100 * outputs.logits_per_image[0, 0] / model.logit_scale.exp())


def test_a_score_is_a_hundred_times_the_cosine_of_image_and_prompt(folder):
    texts = ["a cat", "a very long prompt " * 10, "two dogs on a hill"]
    clip = load_clip(str(folder), None, CPU)
    expected = [by_logits(folder, *pair) for pair in zip(IMAGES, texts, strict=True)]
    assert clip.scores(IMAGES, texts) == pytest.approx(expected, rel=1e-4)
    assert len({round(one, 3) for one in expected}) == 3
    assert [clip.is_cut(text) for text in texts] == [False, True, False]


def test_the_score_of_a_run_is_the_mean_that_torchmetrics_makes(tmp_path):
    # torchmetrics cuts longer prompts without their end token, and takes no mean below 0.
    folder = small_clip(tmp_path / "model", seed=5, longest=160)
    run = save_run(tmp_path / "run", IMAGES)
    prompts = [entry["prompt"] for entry in read_result(run / "results.json")["generation_results"]]
    section = compute(run, ["clip"], None, Extractors(clip=str(folder)))
    entry = section["metrics"]["clip_score"]

    class Processor:
        def __init__(self):
            _, self.tokenizer, self.images = model_of(folder)

        def __call__(self, text=None, images=None, **options):
            if text is not None:
                return self.tokenizer(text, **options)
            return self.images([one.permute(1, 2, 0).numpy() for one in images], return_tensors="pt")

    class Model(torch.nn.Module):  # transformers 5 wraps embeddings, which torchmetrics 1.9 does not expect
        def __init__(self):
            super().__init__()
            self.inner = model_of(folder)[0]
            self.config = self.inner.config

        def get_image_features(self, pixels):
            return self.inner.get_image_features(pixels).pooler_output

        def get_text_features(self, ids, mask):
            return self.inner.get_text_features(ids, mask).pooler_output

    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in IMAGES]
    with torch.no_grad():
        expected = clip_score(tensors, prompts, lambda: (Model(), Processor()))
    assert section["clip_score"] == pytest.approx(float(expected), rel=1e-4)  # which is above 0
    assert (
        section["clip_score"] == pytest.approx(np.mean(entry["per_image"])) and len(entry["per_image"]) == 3
    )
    assert entry["extractor"]["sha256"] and entry["reference"] is None


def test_another_model_or_text_is_another_score(tmp_path, folder):
    other = load_clip(str(small_clip(tmp_path / "other", seed=1)), None, CPU)
    clip = load_clip(str(folder), None, CPU)
    assert other.identity.key != clip.identity.key
    assert load_clip(str(folder), None, CPU).identity.key == clip.identity.key


def test_what_is_no_clip_model_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for name, line in (
        (str(tmp_path / "empty"), "cannot be loaded"),
        (str(tmp_path / "none"), "there is no such folder; give a CLIP model's folder or hub id"),
        ("no-owner", "there is no such folder"),
        ("an-owner/no-such-model", "is not in the local cache and the hub cannot be reached"),
    ):
        with pytest.raises(UserError, match=line) as refused:
            load_clip(name, None, CPU)
        assert "\n" not in str(refused.value) and str(refused.value).startswith("--clip")
