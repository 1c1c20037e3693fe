"""The `mlenergy` command and its verbs. Each verb imports only what it needs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlenergy.diffusion.environment.platforms import check_system
from mlenergy.diffusion.errors import UserError, quiet_pipe
from mlenergy.diffusion.version import __version__

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import PlanArgs
    from mlenergy.diffusion.config.plan import Plan

USER_ERROR = 2
PROG = "mlenergy"
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


@dataclass(frozen=True)
class Verb:
    """A verb of the command, and its line in help."""

    main: Callable[[list[str]], int]
    summary: str


def main() -> int:
    """Run a verb; a user's mistake becomes one line and exit code 2."""
    return quiet_pipe(lambda: _dispatch(sys.argv[1:]))


def _dispatch(argv: list[str]) -> int:
    try:
        check_system()
        match argv:
            case ["-h" | "--help", *_]:
                print(_usage(), end="")
            case ["--version", *_]:
                print(f"{PROG} {__version__}")
            case [word, *_] if word.replace("_", "-") in COMPLETION:
                _complete(argv)
            case [verb, word, *_] if verb in VERBS and word.replace("_", "-") in COMPLETION:
                _complete(argv[1:])  # a shell completes the command, whatever its verb
            case [verb, *rest] if verb in VERBS:
                return VERBS[verb].main(rest)
            case [word, *_]:
                raise UserError(_unknown(word))
            case _:
                print(_usage(), end="")
                return USER_ERROR
    except UserError as error:
        sys.stdout.flush()
        print(f"mlenergy: error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:  # while planning or importing; what runs has handlers of its own
        sys.stdout.flush()
        print("mlenergy: error: interrupted by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _usage() -> str:
    verbs = "\n".join(f"  {name:11}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"usage: {PROG} VERB [OPTIONS]\n\n{verbs}\n\n"
        f"  --help     this list; {PROG} VERB --help lists the options of a verb\n"
        "  --version  version of the package\n"
        "  --tyro-print-completion SHELL  completion of verbs and options for bash, zsh or fish\n\n"
        f"plan and tune take the options of {PROG} run too.\n"
    )


def _unknown(word: str) -> str:
    import difflib

    kind = "option" if word.startswith("-") else "verb"
    meant = difflib.get_close_matches(word, [*VERBS, "--help", "--version"], 1)
    if meant:
        return f"there is no {kind} {word}; did you mean {meant[0]}? See {PROG} --help"
    return f"there is no {kind} {word}; use one of {', '.join(VERBS)}; see {PROG} --help"


def _run(argv: list[str]) -> int:
    from mlenergy.diffusion.executors.torchrun import launch

    return launch(argv)


def _plan(argv: list[str]) -> int:
    from mlenergy.diffusion.config.args import parse_plan_args
    from mlenergy.diffusion.config.resolve import plan_of
    from mlenergy.diffusion.report.cost_view import Target, print_sized_plan

    args = parse_plan_args(argv, f"{PROG} plan")
    for_gpu = any(given is not None for given in (args.gpu, args.gpus, args.gpu_memory_gib))
    plan = plan_of(args, None, for_gpu=for_gpu)
    if args.gpus is not None:
        return _compare_gpus(plan, args)
    if args.images_per_day is not None:
        raise UserError("--images_per_day compares GPUs; name them: --gpus H100,B200")
    target = Target.of(args.gpu, args.gpu_memory_gib, args.calibration)
    print_sized_plan(plan, args.processes, target, as_json=args.json)
    return 0


def _compare_gpus(plan: Plan, args: PlanArgs) -> int:
    from mlenergy.diffusion.forecast.predict import read_fitted
    from mlenergy.diffusion.report.fleet_view import demand_of, print_fleet

    demand = demand_of(args.images_per_day, args.max_latency_s, args.gpu_hour, args.price_kwh)
    gpus = [name.strip() for name in (args.gpus or "").split(",") if name.strip()]
    print_fleet(plan, gpus, demand, read_fitted(args.calibration), as_json=args.json)
    return 0


def _calibrate(argv: list[str]) -> int:
    from mlenergy.diffusion.forecast.command import main as calibrate

    return calibrate(argv)


def _sweep(argv: list[str]) -> int:
    from mlenergy.diffusion.sweep.command import main as sweep

    return sweep(argv)


def _tune(argv: list[str]) -> int:
    from mlenergy.diffusion.tune.command import main as tune

    return tune(argv)


def _study(argv: list[str]) -> int:
    from mlenergy.diffusion.studies.command import main as study

    return study(argv)


def _compare(argv: list[str]) -> int:
    from mlenergy.diffusion.report.compare_command import main as compare

    return compare(argv)


def _index(argv: list[str]) -> int:
    from mlenergy.diffusion.report.index_command import main as index

    return index(argv)


def _report(argv: list[str]) -> int:
    from mlenergy.diffusion.report.html.command import main as report

    return report(argv)


def _export(argv: list[str]) -> int:
    from mlenergy.diffusion.export.command import main as export

    return export(argv)


def _show(argv: list[str]) -> int:
    from mlenergy.diffusion.report.show_command import main as show

    return show(argv)


def _quality(argv: list[str]) -> int:
    from mlenergy.diffusion.report.quality_command import main as quality

    return quality(argv)


def _dataset(argv: list[str]) -> int:
    from mlenergy.diffusion.dataset.command import main as dataset

    return dataset(argv)


def _finetune(argv: list[str]) -> int:
    from mlenergy.diffusion.training.command import main as finetune

    return finetune(argv)


def _models(argv: list[str]) -> int:
    from mlenergy.diffusion.config.args import ModelsArgs
    from mlenergy.diffusion.config.parser import parse
    from mlenergy.diffusion.report.models_view import print_models

    print_models(as_json=parse(ModelsArgs, argv, f"{PROG} models").json)
    return 0


def _doctor(argv: list[str]) -> int:
    from mlenergy.diffusion.config.args import DoctorArgs
    from mlenergy.diffusion.config.parser import parse
    from mlenergy.diffusion.environment.doctor import doctor

    asked = parse(DoctorArgs, argv, f"{PROG} doctor")
    if asked.results:
        from mlenergy.diffusion.report.verify_view import print_differences

        return print_differences(asked.results)
    return doctor()


def _complete(argv: list[str]) -> None:
    """Print or write the completion script for a shell: all verbs with their options."""
    from mlenergy.diffusion.config.args import BenchmarkArgs, DoctorArgs, ModelsArgs, PlanArgs
    from mlenergy.diffusion.config.parser import print_completion
    from mlenergy.diffusion.dataset.options import DatasetArgs
    from mlenergy.diffusion.export.command import ExportArgs
    from mlenergy.diffusion.forecast.command import CalibrateArgs
    from mlenergy.diffusion.report.compare_command import CompareArgs
    from mlenergy.diffusion.report.html.command import ReportArgs
    from mlenergy.diffusion.report.index_command import IndexArgs
    from mlenergy.diffusion.report.quality_command import QualityArgs
    from mlenergy.diffusion.report.show_command import ShowArgs
    from mlenergy.diffusion.studies.command import StudyArgs
    from mlenergy.diffusion.sweep.command import SweepArgs
    from mlenergy.diffusion.training.options import FinetuneArgs
    from mlenergy.diffusion.tune.options import TuneCommand

    kinds: dict[str, type] = {
        "run": BenchmarkArgs,
        "plan": PlanArgs,
        "calibrate": CalibrateArgs,
        "sweep": SweepArgs,
        "tune": TuneCommand,
        "study": StudyArgs,
        "show": ShowArgs,
        "compare": CompareArgs,
        "index": IndexArgs,
        "report": ReportArgs,
        "export": ExportArgs,
        "quality": QualityArgs,
        "dataset": DatasetArgs,
        "finetune": FinetuneArgs,
        "models": ModelsArgs,
        "doctor": DoctorArgs,
    }
    print_completion(kinds, argv, PROG)


VERBS = {
    "run": Verb(_run, "benchmark: starts torchrun with the number of processes that the degrees need"),
    "plan": Verb(_plan, "print what a run would do and need, and other ways to share it out; starts nothing"),
    "calibrate": Verb(_calibrate, "fit the constants of plan's forecasts to own results"),
    "sweep": Verb(
        _sweep, "run many configurations from a file, here or through Slurm; resumes where it stopped"
    ),
    "tune": Verb(
        _tune, "find the settings with the lowest seconds and joules per image, within a time budget"
    ),
    "study": Verb(_study, "studies that come with the program: a sweep with a report of its own each"),
    "show": Verb(_show, "print a table of results: seconds, joules and gigabytes an image, repeats pooled"),
    "compare": Verb(_compare, "compare results: ratios with intervals, what differs, limits for CI"),
    "index": Verb(_index, "keep a table of all results below a folder, for pandas, polars and DuckDB"),
    "report": Verb(_report, "one HTML file of all results below a folder: table, charts, images"),
    "export": Verb(_export, "write results for spreadsheets, the data toolkit, CodeCarbon or trackers"),
    "quality": Verb(
        _quality, "FID, KID, CLIP score, LPIPS, SSIM and PSNR of finished runs, from their images"
    ),
    "dataset": Verb(_dataset, "draw images with captions from a folder, a hub dataset or Parquet files"),
    "finetune": Verb(_finetune, "train LoRA weights of a PixArt model on images with captions, measured"),
    "models": Verb(_models, "list the models with their defaults and parallel modes"),
    "doctor": Verb(
        _doctor, "check versions, GPUs, NCCL and gloo, energy counters, hub token and cache; or results"
    ),
}
