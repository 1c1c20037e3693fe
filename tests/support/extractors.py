"""Small networks as files, and runs with images, for the tests of quality."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import result_folders
import torch
from PIL import Image

from mlenergy.diffusion.results.digest import digests_of_files
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.save import save_result

FEATURES = 6


class _Small(torch.nn.Module):
    """Means of a convolution's outputs over a coarse grid: six features."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, FEATURES, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * torch.relu(self.convolution(images.float() / 255)).mean((2, 3))


def small_inception(file: Path, seed: int = 0) -> torch.nn.Module:
    """Save a TorchScript that makes six features; the network itself is returned."""
    torch.manual_seed(seed)
    network = _Small().eval()
    torch.jit.script(network).save(str(file))
    return network


def pictures(count: int, seed: int, size: tuple[int, int] = (24, 32), shift: int = 0) -> list[Any]:
    """Random images, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    return [random.integers(shift, 200 + shift, (*size, 3), dtype=np.uint8) for _ in range(count)]


def save_run(folder: Path, images: Sequence[Any], **of_result: Any) -> Path:
    """A finished run with these images; its weights are `pretrained` unless `weights` says other.

    `entries` changes what it says of the images by their numbers.
    """
    weights, changes = of_result.pop("weights", "pretrained"), of_result.pop("entries", {})
    seconds = of_result.pop("seconds", [8.0] * len(images))
    content = result_folders.result(seconds, images=True, batch_size=1, **of_result)
    content["weights"] = weights
    for number, change in changes.items():
        content["generation_results"][number] |= change
    paths = RunPaths(folder, "")
    paths.images.mkdir(parents=True)
    for entry, image in zip(content["generation_results"], images, strict=True):
        Image.fromarray(image).save(folder / entry["image"])
    requests = [
        {key: one[key] for key in ("index", "prompt", "seed")} for one in content["generation_results"]
    ]
    paths.requests.write_text(json.dumps({"requests": requests}))
    save_result(paths, {**content, "digests": digests_of_files(paths)})
    return folder


def save_folder(folder: Path, images: Sequence[Any], texts: Sequence[str] | None = None) -> Path:
    """A folder of images; with texts also a metadata.jsonl."""
    folder.mkdir(parents=True)
    names = [f"{index:03d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    if texts is not None:
        rows = [{"file_name": name, "text": text} for name, text in zip(names, texts, strict=True)]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def small_clip(folder: Path, seed: int = 0, longest: int = 16) -> Path:
    """A CLIP model of random weights with its tokenizer and image processor, as transformers saves them."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from mlenergy.diffusion.models.architectures.reader import Tokenizer
    from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(Tokenizer("tokenizer", "transformers.CLIPTokenizer", 1000, longest))
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    of_text = {"vocab_size": len(tokenizer), "max_position_embeddings": longest, "eos_token_id": 999}
    config = CLIPConfig(
        text_config={**tower, **of_text},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder
