"""CLIP score: agreement of an image with its prompt.

Source: Hessel et al., "CLIPScore: a reference-free evaluation metric for image captioning", 2021, in the
form that torchmetrics and MLPerf print: 100 times the cosine of the two embeddings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain
from mlenergy.diffusion.quality.extractor import Identity, name_of, sha256_of

if TYPE_CHECKING:
    from mlenergy.diffusion.quality.images import Pixels

_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


class Clip:
    """A CLIP model of transformers with its tokenizer and image processor, in float32."""

    def __init__(self, folder: Path, name: str, revision: str | None, device: torch.device) -> None:
        """Load a folder.

        Raises:
            UserError: the folder is no CLIP model.
        """
        from transformers import CLIPModel, CLIPTokenizerFast
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of the few files of a small model
        try:
            model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            self._tokenizer = CLIPTokenizerFast.from_pretrained(folder)
            self._processor = CLIPImageProcessorPil.from_pretrained(folder)
        except Exception as error:  # of many kinds, by the file that is missing or wrong
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"--clip {name}: cannot be loaded ({reason}); give a CLIP model's folder"
            ) from error
        self._model, self._device = model.eval().requires_grad_(False).to(device), device
        self._longest = int(model.config.text_config.max_position_embeddings)
        settings = {"scale": 100, "longest_text_tokens": self._longest, "dtype": "float32"}
        self.identity = Identity("clip", name, _digest(folder), revision, settings, name_of(device))

    def is_cut(self, text: str) -> bool:
        """True of a text with more tokens than the model reads."""
        tokens = self._tokenizer(text, truncation=True, max_length=self._longest + 1)["input_ids"]
        return len(tokens) > self._longest

    @torch.inference_mode()
    def scores(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        """100 times the cosine of each image and its text."""
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        words = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
        )
        of_images = _embedding(self._model.get_image_features(pixel_values=pixels.to(self._device)))
        of_texts = _embedding(self._model.get_text_features(**words.to(self._device)))
        cosine = torch.nn.functional.cosine_similarity(of_images, of_texts, dim=-1)
        return [100 * float(one) for one in cosine.double().cpu()]


def load_clip(name: str, revision: str | None, device: torch.device) -> Clip:
    """A model of a folder or of the hub.

    Raises:
        UserError: there is none, the hub cannot be reached, or its files are no CLIP model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Clip(folder, name, None, device)
    if folder.exists() or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise UserError(f"--clip {name}: there is no such folder; give a CLIP model's folder or hub id")
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:
        raise UserError(f"--clip: {explain(error, name, revision)}") from error
    return Clip(path, name, path.name, device)


def _embedding(output: Any) -> torch.Tensor:
    """Of a version of transformers that wraps it, and of one that does not."""
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return found


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that are loaded."""
    whole = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        whole.update(f"{file.name} {sha256_of(file)}\n".encode())
    return whole.hexdigest()
