"""The folder of a training: who may write it, its checkpoints, its record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import cannot_write, force_to_disk, write_json

RECORD = "training.json"
_REQUEST = "request.json"
_STATE = "state.json"
_CHECKPOINTS = "checkpoints"
_KEPT = 2
_SHOWN = 3


@dataclass(frozen=True)
class TrainingFolder:
    """Files of one training."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the process that trains."""
        return self.path / ".lock"

    @property
    def log(self) -> Path:
        """Output of the libraries."""
        return self.path / "log.txt"

    @property
    def record(self) -> Path:
        """The record of a training that is complete."""
        return self.path / RECORD

    def claim(self, request: Mapping[str, Any]) -> bool:
        """Take the folder for a request; True where it is complete already.

        Raises:
            UserError: it holds another training, or other files.
        """
        file = self.path / _REQUEST
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            others = sorted(one.name for one in self.path.iterdir() if one.name != ".lock")
            if others:
                shown = ", ".join(others[:_SHOWN])
                raise UserError(f"{self.path} holds other files ({shown}); choose another --out") from None
            write_json(file, request, "--out")
            return False
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); choose another --out") from error
        differing = [name for name in request if old.get(name) != request[name]]
        if differing:
            name = differing[0]
            raise UserError(
                f"{self.path} holds another training (different {', '.join(differing[:_SHOWN])}; {name} was "
                f"{old.get(name)}); choose another --out, or remove it"
            )
        return self.record.is_file()

    def last_checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint and its state; None where there is none."""
        for folder in reversed(self._checkpoints()):
            try:
                return folder, json.loads((folder / _STATE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # the one before is whole
        return None

    def save_checkpoint(self, step: int, state: Mapping[str, Any], save: Callable[[Path], None]) -> Path:
        """Write a checkpoint aside, rename it, and remove all but the last two.

        Raises:
            UserError: it cannot be written.
        """
        target = self.path / _CHECKPOINTS / f"step-{step:08d}"
        aside = target.with_name(f".writing-{os.getpid()}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            save(aside)
            write_json(aside / _STATE, state, "--out")
            for file in aside.iterdir():
                force_to_disk(file)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            force_to_disk(target.parent)
        except OSError as error:
            raise cannot_write(target, error, "--out") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for old in self._checkpoints()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / _CHECKPOINTS).glob("step-*"))
