"""One training on one rank: load, go on from the last checkpoint, train in measured windows, save."""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.dataset.folder import ImageFolder
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.environment.device import cpu_name
from mlenergy.diffusion.environment.record import environment_record, node_record, package_versions
from mlenergy.diffusion.errors import Interrupted, UserError
from mlenergy.diffusion.measure.energy.meter import Meter, MeterOptions, make_meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.supervision.terminal import Terminal
from mlenergy.diffusion.training.folder import TrainingFolder
from mlenergy.diffusion.training.loss import NoiseLoss
from mlenergy.diffusion.training.options import FinetuneArgs
from mlenergy.diffusion.training.plan import precision_of
from mlenergy.diffusion.training.record import segment_of, training_record
from mlenergy.diffusion.training.trainer import ADAPTER, Trainer
from mlenergy.diffusion.weights.load_report import LoadWatch
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.pipeline import load

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class StopSignal:
    """The first signal, which ends the training after its window; a second one ends it at once."""

    signum: int | None = None

    def install(self) -> None:
        """Take the signals over."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signum is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = number


@dataclass(frozen=True)
class _StopRule:
    trainer: Trainer
    stop: StopSignal

    def is_met(self, _durations_s: Sequence[float]) -> bool:
        """True where a signal has come, or the training cannot go on."""
        return self.stop.signum is not None or self.trainer.failure is not None


@dataclass
class _Session:
    """The figures of a training, those of earlier sessions included."""

    args: FinetuneArgs
    cluster: Cluster
    folder: TrainingFolder
    request: dict[str, Any]
    terminal: Terminal
    facts: dict[str, Any] = field(default_factory=dict)
    segments: list[dict[str, Any]] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Print a line of progress, on one rank."""
        if self.cluster.rank.is_main:
            print(line, file=self.terminal.err, flush=True)

    def write_record(self, trainer: Trainer, state: str) -> dict[str, Any]:
        """Write training.json, or where it is not complete training_STATE.json; on rank 0."""
        record = training_record(self.request, trainer.curve_rows(), self.segments, self.facts, state)
        name = self.folder.record.name if state == "complete" else f"training_{state}.json"
        write_json(self.folder.path / name, record, "--out")
        return record


def train(
    args: FinetuneArgs,
    plan: Plan,
    images: ImageFolder,
    rank: Rank,
    request: dict[str, Any],
    is_done: bool,
    terminal: Terminal,
) -> None:
    """Train to the last step, from the last checkpoint on, unless that is done. Every rank calls it.

    Raises:
        UserError: one line that says what to do.
        Interrupted: a signal ended it; the next call goes on from there.
    """
    stop = StopSignal()
    stop.install()
    cluster = Cluster.start(rank, plan.device)
    if not cluster.broadcast_object(is_done):
        session = _Session(args, cluster, TrainingFolder(args.out), request, terminal)
        try:
            _train(session, plan, images, stop)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory on rank {rank.rank}: use a smaller --batch_size, --gradient_checkpointing, "
                "or smaller --height and --width, with another --out"
            ) from error
    cluster.close()


def _train(session: _Session, plan: Plan, images: ImageFolder, stop: StopSignal) -> None:
    args, cluster, folder = session.args, session.cluster, session.folder
    options = MeterOptions(args.energy_gpus, args.sample_period_s, args.idle_s, args.require_energy)
    meter = make_meter(cluster, cluster.device, options)
    session.say(f"loading {args.model_id}")
    watch = LoadWatch(cluster.device)
    with cluster.raise_on_all_ranks():
        pipeline = load(locate(plan, cluster), plan, cluster.device)
    loaded = {"load_s": watch.load_s, **watch.facts(pipeline)}
    loss = NoiseLoss.of(pipeline, plan.height_px, plan.width_px, plan.max_sequence_length or 120)
    with cluster.raise_on_all_ranks():
        trainer = Trainer(args, pipeline, loss, images, cluster, precision_of(args, plan))
    session.facts = _facts(session, plan, images, trainer, loaded, pipeline)
    begin = _go_on(session, trainer)
    components = {k: v for k, v in pipeline.components.items() if isinstance(v, torch.nn.Module)}
    devices = [_device_name(cluster)]
    while begin < args.steps:
        end = min(args.steps, (begin // args.checkpoint_every + 1) * args.checkpoint_every)
        steps_before = len(trainer.curve)
        _segment(session, trainer, meter, components, stop, begin, end, devices)
        if len(trainer.curve) > steps_before and trainer.failure is None:
            _checkpoint(session, trainer)
        _end_early(session, trainer, stop)
        begin = end
        if begin < args.steps:
            # A meter reads one measurement; the idle power is that of before the load.
            idle_w = meter.idle_power_w
            meter = make_meter(cluster, cluster.device, replace(options, idle_s=0))
            meter.idle_power_w = idle_w
    with cluster.raise_on_all_ranks():
        if cluster.rank.is_main:
            trainer.save_adapter(folder.path)
            digest = hashlib.sha256((folder.path / ADAPTER).read_bytes()).hexdigest()
            session.facts["lora"] |= {"file": ADAPTER, "sha256": digest}
            _print_summary(session, session.write_record(trainer, "complete"))
            for state in ("interrupted", "failed"):
                (folder.path / f"training_{state}.json").unlink(missing_ok=True)
    trainer.close()


def _segment(
    session: _Session,
    trainer: Trainer,
    meter: Meter,
    components: dict[str, torch.nn.Module],
    stop: StopSignal,
    begin: int,
    end: int,
    devices: list[str],
) -> None:
    """Train the steps from `begin` to `end` in measured windows, and keep their figures."""
    args, cluster = session.args, session.cluster
    ends = [min(end, first + args.log_every) for first in range(begin, end, args.log_every)]
    starts = [begin, *ends[:-1]]

    def on_window(_kind: str, _index: int, seconds: float) -> None:
        if trainer.curve:
            last = trainer.curve[-min(args.log_every, len(trainer.curve)) :]
            mean = sum(step.loss for step in last) / len(last)
            session.say(f"step {trainer.curve[-1].step}/{args.steps}: loss {mean:.4f}, {seconds:.3f} s")

    steps_before = len(trainer.curve)
    measurement, _ = measure(
        trainer.train,
        Schedule(
            (), [trainer.batch(a, b) for a, b in zip(starts, ends, strict=True)], _StopRule(trainer, stop)
        ),
        Instruments(meter, None, MemoryWatch(cluster.device, components)),
        cluster,
        on_iteration=on_window,
        keep_outputs=False,
    )
    if measurement is not None:
        first, last = begin + 1, begin + len(trainer.curve) - steps_before
        session.segments.append(segment_of(measurement, first, last, devices))


def _checkpoint(session: _Session, trainer: Trainer) -> None:
    """Save everything that further steps depend on, on rank 0."""
    with session.cluster.raise_on_all_ranks():
        if session.cluster.rank.is_main:
            done = len(trainer.curve)
            state = {"step": done, "curve": trainer.curve_rows(), "segments": session.segments}
            session.folder.save_checkpoint(done, state, trainer.save_state)


def _go_on(session: _Session, trainer: Trainer) -> int:
    """Load the last checkpoint; returns the number of steps that are done."""
    from mlenergy.diffusion.training.trainer import Step

    found = session.cluster.broadcast_object(
        session.folder.last_checkpoint() if session.cluster.rank.is_main else None
    )
    if found is None:
        return 0
    folder, state = found
    trainer.load_state(folder)
    trainer.curve = [Step(**row) for row in state["curve"]]
    session.segments = state["segments"]
    session.say(f"going on after step {state['step']}")
    return int(state["step"])


def _end_early(session: _Session, trainer: Trainer, stop: StopSignal) -> None:
    """End where the loss is not finite, or a signal has come: what was measured is on disk."""
    signum = session.cluster.broadcast_object(stop.signum)
    if trainer.failure is not None:
        where = session.folder.path / "training_failed.json"
        if session.cluster.rank.is_main:
            session.facts["failure"] = trainer.failure
            session.write_record(trainer, "failed")
        raise UserError(
            f"{trainer.failure}; lower --learning_rate, or use --mixed_precision no, with another --out "
            f"(the curve until then is in {where})"
        )
    if signum is not None:
        if session.cluster.rank.is_main:
            session.write_record(trainer, "interrupted")
        done = len(trainer.curve)
        raise Interrupted(signum, f"{done} of {session.args.steps} steps are saved; the same command goes on")


def _facts(
    session: _Session,
    plan: Plan,
    images: ImageFolder,
    trainer: Trainer,
    loaded: dict[str, Any],
    pipeline: Any,
) -> dict[str, Any]:
    cluster = session.cluster
    nodes = cluster.gather_object(node_record())
    frozen = sum(p.numel() for p in pipeline.transformer.parameters()) - trainer.parameters
    environment = environment_record(sys.argv, nodes=nodes)
    environment["versions"] = package_versions() | _version_of("peft")
    return {
        "model_id": plan.spec.model_id,
        "pipeline": plan.spec.family.pipeline_class,
        "weights": plan.weights_kind,
        "load": loaded,
        "dataset": images.provenance(),
        "lora": {
            "rank": trainer.lora.r,
            "alpha": trainer.lora.lora_alpha,
            "targets": list(session.args.targets),
            "trained_parameters": trainer.parameters,
            "frozen_parameters": frozen,
        },
        "global_batch": trainer.global_batch,
        "environment": environment,
    }


def _version_of(package: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package)}


def _device_name(cluster: Cluster) -> str:
    return torch.cuda.get_device_name(cluster.device) if cluster.device.type == "cuda" else cpu_name()


def _print_summary(session: _Session, record: dict[str, Any]) -> None:
    curve = record["loss_curve"]
    part = curve[: max(1, len(curve) // 10)], curve[-max(1, len(curve) // 10) :]
    first, last = (sum(row["loss"] for row in rows) / len(rows) for rows in part)
    energy = record["energy_j"]
    known = f"{energy:.4g} J" if energy is not None else f"not known: {record['energy_reason']}"
    lines = (
        f"  trained        {record['steps']} steps, {record['images']} images, {record['duration_s']:.4g} s",
        f"  images/s       {record['images_per_second']:.4g}",
        f"  energy         {known}",
        f"  loss           {first:.4f} over the first tenth, {last:.4f} over the last",
        f"  LoRA           {session.folder.path} (for --workload.lora)",
        f"  record         {session.folder.record}",
    )
    print("\n".join(lines), file=session.terminal.out, flush=True)
