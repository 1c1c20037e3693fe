"""Published checkpoints on this machine: found in a folder or fetched from the hub, and read strictly.

A checkpoint is a plain state dict in the authors' layout. It is read without unpickling objects
(`weights_only`), and has to hold exactly the keys and shapes of the module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import download_file, download_folder
from mlenergy.diffusion.weights.per_node import once_a_node

State = Mapping[str, torch.Tensor]

_MOST_SHOWN = 5  # keys in an error's line
_TEXT_ENCODER_FILES = ("*.json", "*.safetensors", "spiece.model")


def find_files(plan: Plan, cluster: Cluster) -> dict[str, Path] | None:
    """Component -> checkpoint on this machine; None for random weights. Every rank calls it.

    The first rank of a node downloads, and the others are told.

    Raises:
        UserError: on every rank: a file is missing, or the hub does not give it.
    """
    if plan.has_random_weights:
        return None
    return once_a_node(cluster, plan.weights_from, lambda: _locate(plan))


def _locate(plan: Plan) -> dict[str, Path]:
    model = plan.spec.next_scale
    assert model is not None and model.source is not None
    folder = Path(model.source)
    if folder.is_absolute():
        missing = [file for file in model.files.values() if not (folder / file).exists()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; put the published file there, too")
        found = {name: folder / file for name, file in model.files.items()}
    else:
        found = {name: _from_hub(model.source, file, plan.revision) for name, file in model.files.items()}
    if model.text_encoder is not None:
        found["text_encoder"] = _text_encoder(model.text_encoder, folder)
    return found


def _from_hub(hub_id: str, file: str, revision: str | None) -> Path:
    if Path(file).suffix:
        return download_file(hub_id, file, revision)
    path = download_folder(hub_id, [f"{file}/*"], revision) / file
    if not path.is_dir():
        raise UserError(f"{hub_id} holds no folder {file}; leave --workload.revision out, or give another")
    return path


def _text_encoder(hub_id: str, folder: Path) -> Path:
    """Its folder beside the checkpoints, by the repository's own name, or the hub's copy."""
    beside = folder / hub_id.rpartition("/")[2]
    if folder.is_absolute() and beside.is_dir():
        return beside
    return download_folder(hub_id, _TEXT_ENCODER_FILES, None)


def read_state(path: Path, part: str | None = None) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors on the CPU, mapped from the file; nothing in it is run.

    part: key of the tensors in a file that holds several dictionaries; one that holds one alone is read, too.

    Raises:
        UserError: it cannot be read, or is not a state dict of tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises what it likes on a file that is none of its own
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read as weights ({reason}); download it again") from error
    if part is not None and isinstance(state, dict) and isinstance(state.get(part), dict):
        state = state[part]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} is not a plain dictionary of tensors; give the published file")
    return state


def load_strictly(
    module: torch.nn.Module,
    state: State,
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    not_loaded: Sequence[str] = (),
    also_known: Iterable[tuple[str, torch.Size]] = (),
) -> None:
    """Fill a module of the meta device from a checkpoint, in `dtype` on `device`.

    Args:
        module: its parameters' names are the checkpoint's keys.
        state: of the checkpoint.
        path: for messages.
        device: where the parameters will lie.
        dtype: of the parameters.
        not_loaded: patterns of whole keys that a checkpoint may hold and that generating does not need.
        also_known: keys and shapes that it has to hold beside the module's own (a VAE's encoder).

    Raises:
        UserError: keys are missing, unknown or of another shape; it lists them.
    """
    wanted = {name: parameter.shape for name, parameter in module.named_parameters()}
    known = wanted | dict(also_known)
    ignored = [re.compile(pattern) for pattern in not_loaded]
    extra = [key for key in state if key not in known and not any(one.fullmatch(key) for one in ignored)]
    missing = [key for key in known if key not in state]
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(shape)}"
        for key, shape in known.items()
        if key in state and state[key].shape != shape
    ]
    faults = [("missing", missing), ("not known", extra), ("of another shape", shapes)]
    found = [f"{len(keys)} keys {words}: {_first(keys)}" for words, keys in faults if keys]
    if found:
        raise UserError(f"{path} does not fit the model: {'; '.join(found)}; give the published file")
    values = {name: state[name].to(device=device, dtype=dtype, copy=True) for name in wanted}
    module.load_state_dict(values, strict=True, assign=True)
    module.requires_grad_(False)


def _first(keys: Sequence[str]) -> str:
    more = len(keys) - _MOST_SHOWN
    return ", ".join(keys[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
