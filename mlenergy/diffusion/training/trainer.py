"""Steps of the optimizer on this rank, with accelerate and peft."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from mlenergy.diffusion.dataset.folder import ImageFolder
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.training.loss import NoiseLoss
from mlenergy.diffusion.training.options import FinetuneArgs, Precision
from mlenergy.diffusion.training.samples import draw, image_of

ADAPTER = "adapter_model.safetensors"  # peft's name
_OPTIMIZER = "optimizer.pt"


@dataclass(frozen=True)
class Step:
    """One step of the optimizer; the loss is the mean over all images of the step, on all ranks."""

    step: int  # from 1
    loss: float
    learning_rate: float
    grad_norm: float | None  # before it is cut; None where float16's scaler has skipped the step


class Trainer:
    """The LoRA of a pipeline's transformer, and its optimizer. Every rank has the same.

    Args:
        args: options; sizes and precision are resolved.
        pipeline: loaded, on the cluster's device, in the type of ``precision``.
        loss: of the same pipeline.
        images: with captions.
        cluster: ranks that share each step's images.
        precision: of the computation.

    Raises:
        UserError: a target names no layer.
    """

    def __init__(
        self,
        args: FinetuneArgs,
        pipeline: Any,
        loss: NoiseLoss,
        images: ImageFolder,
        cluster: Cluster,
        precision: Precision,
    ) -> None:
        self._args, self._loss, self._images, self._cluster = args, loss, images, cluster
        self._accelerator = Accelerator(mixed_precision=precision, cpu=cluster.device.type == "cpu")
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.requires_grad_(False)
        pipeline.vae.float()  # the VAE of SDXL and PixArt-Sigma overflows in float16
        if args.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()
        self.lora = LoraConfig(
            r=args.rank,
            lora_alpha=args.rank if args.alpha is None else args.alpha,
            lora_dropout=args.lora_dropout,
            target_modules=list(args.targets),
        )
        torch.manual_seed(args.seed)  # of the first weights
        try:
            self._model = get_peft_model(pipeline.transformer, self.lora)
        except ValueError as error:
            raise UserError(
                f"--targets {' '.join(args.targets)}: {_line(error)}; name layers of it"
            ) from error
        self.lora.base_model_name_or_path = args.model_id  # peft has put the folder on this machine there
        self.trainable = [p for p in self._model.parameters() if p.requires_grad]
        assert all(parameter.dtype == torch.float32 for parameter in self.trainable)
        optimizer = torch.optim.AdamW(self.trainable, lr=args.learning_rate, weight_decay=args.weight_decay)
        self._model.train()
        self._wrapped, self._optimizer = self._accelerator.prepare(self._model, optimizer)
        self.curve: list[Step] = []
        self.failure: str | None = None  # why the training cannot go on

    @property
    def global_batch(self) -> int:
        """Images of one step, over all ranks."""
        return self._args.batch_size * self._args.gradient_accumulation * self._cluster.rank.world_size

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trainable)

    def batch(self, first_step: int, last_step: int) -> Batch:
        """The samples of steps, counted from 0, the last one excluded: one measured window."""
        samples = range(first_step * self.global_batch, last_step * self.global_batch)
        count = len(self._images.examples)
        examples = [self._images.examples[image_of(self._args.seed, one, count)] for one in samples]
        return Batch(tuple(one.caption for one in examples), tuple(samples))

    def train(self, batch: Batch) -> Generated:
        """Run the steps of a batch, in the form of an engine's call: no images come of it.

        A loss or gradient that is not finite ends it before the weights are touched; see ``failure``.
        """
        for first in range(0, len(batch.seeds), self.global_batch):
            if self.failure is None:
                self._step(batch.seeds[first] // self.global_batch)
        return Generated(None)

    def _step(self, step: int) -> None:
        args, rank = self._args, self._cluster.rank
        torch.manual_seed((args.seed + step * rank.world_size + rank.rank) % 2**63)  # of the dropout
        rate = learning_rate(args, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        total = torch.zeros((), device=self._cluster.device)
        for forward in range(args.gradient_accumulation):
            is_last = forward == args.gradient_accumulation - 1
            alone = contextlib.nullcontext() if is_last else self._accelerator.no_sync(self._wrapped)
            with alone:
                loss = self._forward(step, forward) / args.gradient_accumulation
                self._accelerator.backward(loss)
            total += loss.detach()
        value = float(self._accelerator.reduce(total, reduction="mean"))
        if not math.isfinite(value):
            self.failure = f"the loss of step {step + 1} is {value}"
            return
        norm: float | None = float(self._accelerator.clip_grad_norm_(self.trainable, args.max_grad_norm))
        assert norm is not None
        if not math.isfinite(norm):
            if self._accelerator.scaler is None:
                self.failure = f"the gradient of step {step + 1} is {norm}"
                return
            norm = None
        self._optimizer.step()
        self.curve.append(Step(step + 1, value, rate, norm))

    def _forward(self, step: int, forward: int) -> torch.Tensor:
        args, rank = self._args, self._cluster.rank
        first = step * self.global_batch + (forward * rank.world_size + rank.rank) * args.batch_size
        samples = range(first, first + args.batch_size)
        count = len(self._images.examples)
        examples = [self._images.examples[image_of(args.seed, one, count)] for one in samples]
        shape, timesteps = self._loss.latent_shape, self._loss.timesteps
        draws = [draw(args.seed, one, shape, timesteps, args.caption_dropout) for one in samples]
        with self._accelerator.autocast():
            return self._loss(
                self._wrapped, [one.file for one in examples], [one.caption for one in examples], draws
            )

    def save_adapter(self, folder: Path) -> None:
        """Write the LoRA in peft's format, which --workload.lora takes."""
        state = get_peft_model_state_dict(self._model, save_embedding_layers=False)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / ADAPTER
        )
        self.lora.inference_mode = True
        self.lora.save_pretrained(str(folder))
        self.lora.inference_mode = False

    def save_state(self, folder: Path) -> None:
        """Write everything that further steps depend on."""
        self.save_adapter(folder)
        scaler = self._accelerator.scaler
        state = {
            "optimizer": self._optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        torch.save(state, folder / _OPTIMIZER)

    def load_state(self, folder: Path) -> None:
        """Go on from a state that was saved."""
        set_peft_model_state_dict(self._model, load_file(folder / ADAPTER))
        state = torch.load(folder / _OPTIMIZER, map_location=self._cluster.device, weights_only=True)
        self._optimizer.load_state_dict(state["optimizer"])
        if self._accelerator.scaler is not None and state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])

    def curve_rows(self) -> list[dict[str, Any]]:
        """The loss curve as plain data."""
        return [asdict(step) for step in self.curve]

    def close(self) -> None:
        """Forget what accelerate keeps for the whole process."""
        AcceleratorState._reset_state(reset_partial_state=True)


def learning_rate(args: FinetuneArgs, step: int) -> float:
    """The learning rate of a step, counted from 0: a function of the options, so that no state is kept."""
    if step < args.lr_warmup_steps:
        return args.learning_rate * (step + 1) / args.lr_warmup_steps
    if args.lr_schedule == "constant":
        return args.learning_rate
    share = (step - args.lr_warmup_steps) / max(1, args.steps - args.lr_warmup_steps)
    if args.lr_schedule == "linear":
        return args.learning_rate * (1 - share)
    return args.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
