"""Networks that metrics are computed with: their weights' files, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "torchmetrics", "pillow", "numpy")


@dataclass(frozen=True)
class Identity:
    """What a value was computed with; equal identities give equal values."""

    kind: str  # such as inception
    weights: str  # as they were given: a file, a folder or a hub id
    sha256: str | None  # of the weights; None where a metric has none
    revision: str | None = None  # of the hub
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def as_dict(self) -> dict[str, Any]:
        """For the result."""
        return {
            "kind": self.kind,
            "weights": self.weights,
            "sha256": self.sha256,
            "revision": self.revision,
            "settings": dict(self.settings),
            "device": self.device,
        }

    @property
    def key(self) -> str:
        """Digest of everything that a value depends on, where the weights lie left out."""
        parts = {**self.as_dict(), "weights": None, "revision": None, "versions": versions()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of the packages that values depend on; None: not installed."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def device_of(asked: str) -> torch.device:
    """The device to compute on.

    Args:
        asked: auto (a GPU where there is one), or a name of torch's, such as cpu or cuda:1.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {asked}: {reason}; give auto, cpu or cuda") from None
    return device


def name_of(device: torch.device) -> str:
    """The device's type and, of a GPU, its name: kernels of different GPUs round differently."""
    import torch

    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def weights_file(option: str, text: str) -> Path:
    """A file of weights on this machine; one of the hub is downloaded.

    Args:
        option: that named it, for messages.
        text: a path, or OWNER/REPOSITORY/FILE of the hub.

    Raises:
        UserError: there is no such file, and the hub has none or cannot be reached.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    owner, _, rest = text.partition("/")
    repository, _, file = rest.partition("/")
    if path.exists() or path.is_absolute() or text.startswith((".", "~")) or not file:
        raise UserError(
            f"{option} {text}: there is no such file; give one, or OWNER/REPOSITORY/FILE of the hub"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:
        raise UserError(f"{option}: {explain(error, text, None)}") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(option: str, path: Path, device: torch.device) -> torch.jit.ScriptModule | dict[str, Any]:
    """A TorchScript network, or the tensors of a state dict; nothing in the file is run as Python code.

    Raises:
        UserError: it is neither, or is cut off.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: dict[str, Any] = load_file(path, device=str(device))
            return tensors
        if _is_torchscript(path):
            network: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device).eval()
            return network
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # of many kinds, by where the file is damaged
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{option} {path}: cannot be read as weights ({reason}); download it again"
        ) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{option} {path}: holds a {kind}; give a state dict, or a network as TorchScript")
    return content


def _is_torchscript(path: Path) -> bool:
    """True of a file that torch.jit.save wrote: an archive with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
