"""The command line as a user meets it: help, version, spelling, mistakes, pipes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlenergy.diffusion.cli import VERBS, main
from mlenergy.diffusion.config.args import PlanArgs, parse_args
from mlenergy.diffusion.config.parser import parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.compare_command import CompareArgs
from mlenergy.diffusion.report.index_command import IndexArgs
from mlenergy.diffusion.report.show_command import ShowArgs
from mlenergy.diffusion.sweep.command import SweepArgs
from mlenergy.diffusion.tune.options import read_command
from mlenergy.diffusion.version import __version__

ROOT = Path(__file__).parents[1]
MLENERGY = str(Path(sys.executable).with_name("mlenergy"))
BENCHMARK = [sys.executable, "-m", "mlenergy.diffusion.benchmark"]
TINY = ["--workload.model_id", "tiny/flux"]
RUN_GROUPS = ["general", "parallelism", "measuring", "compilation", "optimization", "output", "workload"]
SCREENFUL = 55


def output(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `mlenergy ARGV`."""
    monkeypatch.setattr(sys, "argv", ["mlenergy", *argv])
    try:
        code = main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def mlenergy(capsys, monkeypatch):
    return lambda *argv: output(list(argv), capsys, monkeypatch)


def groups_of(text: str) -> dict[str, list[str]]:
    """Lines of help by the title of their box."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("╭─ "):
            found[line.split()[1]] = []
        elif line.startswith("│") and found:
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_fits_a_terminal(mlenergy, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "200")
    code, text, error = mlenergy(verb, "--help")
    assert (code, error) == (0, "")
    assert text.startswith(f"usage: mlenergy {verb} ")
    assert max(map(len, text.splitlines())) <= 120
    assert "None" not in text


@pytest.mark.parametrize("start", [[MLENERGY, "run"], BENCHMARK])
def test_help_of_a_run_shows_its_options_in_groups_and_the_workloads_under_them(start):
    text = subprocess.run(
        [*start, "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "120"}
    ).stdout
    groups = groups_of(text)
    assert [title for title in groups if title not in ("options", "subcommands")] == RUN_GROUPS
    assert max(map(len, groups.values())) <= SCREENFUL
    options = {
        title: [word for line in lines for word in line.split()[1:2] if word.startswith("--")]
        for title, lines in groups.items()
    }
    assert "--ulysses_degree" in options["parallelism"]
    assert "--benchmark_iters" in options["measuring"]
    assert "--use_torch_compile" in options["compilation"]
    assert "--no_save_images" in options["output"]
    assert "--workload.model_id" in options["workload"]
    assert not [word for words in options.values() for word in words if "-" in word.lstrip("-")]


def test_help_of_the_command_lists_the_verbs(mlenergy):
    code, text, _ = mlenergy("--help")
    assert code == 0
    lines = text.splitlines()
    assert all(any(line.strip().startswith(f"{verb} ") for line in lines) for verb in VERBS)
    assert max(map(len, lines)) <= 120
    assert mlenergy()[0] == 2


def test_version(mlenergy):
    assert mlenergy("--version") == (0, f"mlenergy {__version__}\n", "")


def test_the_package_is_the_same_command():
    for words in (["--version"], ["plan", "--bad"], ["run", "--help"]):
        ways = [
            subprocess.run([*start, *words], capture_output=True, text=True)
            for start in ([MLENERGY], [sys.executable, "-m", "mlenergy.diffusion"])
        ]
        assert len({(way.returncode, way.stdout, way.stderr) for way in ways}) == 1


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("modls", "there is no verb modls; did you mean models?"),
        ("--versoin", "there is no option --versoin; did you mean --version?"),
        ("zzz", f"there is no verb zzz; use one of {', '.join(VERBS)}"),
        ("show --marckdown x", "there is no option --marckdown; did you mean --markdown?"),
        ("show", "required: PATH"),
        (
            "compare --fail-if-slow 5% a b",
            "there is no option --fail-if-slow; did you mean --fail_if_slower?",
        ),
        ("index --outt x", "there is no option --outt; did you mean --out?"),
        ("run --ulyses_degree 2", "there is no option --ulyses_degree; did you mean --ulysses_degree?"),
        ("plan --no-save-image", "there is no option --no-save-image; did you mean --no_save_images?"),
        ("run --batch_size 2", "there is no option --batch_size; did you mean --workload.batch_size?"),
        ("plan --workload.debug", "there is no option --workload.debug; did you mean --debug?"),
        ("tune --budget 3", "there is no option --budget; did you mean --budget_s?"),
        ("sweep --retires 3 x.yaml", "there is no option --retires; did you mean --retries?"),
        ("models --jsn", "there is no option --jsn; did you mean --json?"),
        ("models -j", "there is no option -j"),
        (
            "plan workload:text-to-imgae",
            "there is no workload:text-to-imgae; did you mean workload:text-to-image?",
        ),
        (
            "run workload:sound",
            "there is no workload:sound; use one of workload:text-to-image, workload:t2i, "
            "workload:text-to-video, workload:t2v",
        ),
        ("run t2i", "'t2i' is neither an option nor an option's value; did you mean workload:t2i?"),
        ("models flu", "'flu' is neither an option nor an option's value"),
        ("sweep a.yaml b.yaml", "'b.yaml' is neither an option nor an option's value"),
        ("run workload:t2i", "required: --workload.model_id"),
        (
            "run",
            "required: --workload.model_id; for example workload:text-to-image --workload.model_id tiny/flux",
        ),
        ("sweep", "required: FILE"),
        (
            "plan --engine xdti",
            "--engine takes one of auto, xdit, diffusers, autoregressive, not 'xdti'; did you mean xdit?",
        ),
        ("plan --ring_degree two", "--ring_degree takes a whole number, not 'two'"),
        ("tune --target_ci=x", "--target_ci takes a number, not 'x'"),
        ("plan --ring_degree", "--ring_degree needs a value"),
        ("plan --ring_degree --debug", "--ring_degree needs a value"),
        ("plan --debug=yes", "--debug takes no value; write --debug or --no_debug"),
    ],
)
def test_a_mistake_is_one_line(mlenergy, command, sentence):
    verb = f"mlenergy {command.split()[0]}" if command.split()[0] in VERBS else "mlenergy"
    see = " See" if sentence.endswith("?") else "; see"
    assert mlenergy(*command.split()) == (2, "", f"mlenergy: error: {sentence}{see} {verb} --help\n")


def test_the_workloads_name_may_stand_anywhere_or_be_left_out():
    lines = [
        ["workload:text-to-image", *TINY, "--workload.batch_size", "2", "--energy_gpus", "0", "1", "--debug"],
        [*TINY, "--energy_gpus", "0", "1", "workload:text-to-image", "--debug", "--workload.batch_size", "2"],
        [*TINY, "--workload.batch_size=2", "--debug", "--energy_gpus", "0", "1", "workload:t2i"],
        ["--energy-gpus", "0", "1", "--workload.batch-size", "2", "--debug", *TINY],
    ]
    parsed = [parse_args(line) for line in lines]
    assert all(args == parsed[0] for args in parsed)
    assert parsed[0].energy_gpus == ("0", "1")
    assert parsed[0].workload.batch_size == 2


def test_a_workloads_name_may_be_an_options_value():
    args = parse_args(["--workload.prompt_prefix", "workload:t2i", *TINY, "workload:t2i"])
    assert args.workload.prompt_prefix == "workload:t2i"


@pytest.mark.parametrize(
    ("words", "save_images", "debug"),
    [
        ([], True, False),
        (["--no_save_images", "--debug"], False, True),
        (["--no-save-images", "--no-debug"], False, False),
        (["--no_save_images", "--save-images", "--debug", "--no_debug"], True, False),
        (["--save_images", "--no_save_images", "--debug", "--debug"], False, True),
    ],
)
def test_flags_have_both_forms_and_the_last_one_counts(words, save_images, debug):
    args = parse_args([*words, *TINY])
    assert (args.save_images, args.debug) == (save_images, debug)
    of_workload = parse_args([*TINY, "--workload.allow-pickle", "--workload.no-allow-pickle"]).workload
    assert of_workload.allow_pickle is False


def test_values_may_look_like_options_after_an_equals_sign():
    args = parse_args([*TINY, "--workload.negative_prompt=--ugly", "--idle_s", "0"])
    assert (args.workload.negative_prompt, args.idle_s) == ("--ugly", 0.0)
    with pytest.raises(UserError, match=r"--workload\.seed -5 is too small; use 0 or more"):
        parse_args([*TINY, "--workload.seed", "-5"])
    with pytest.raises(UserError, match="negative_prompt needs a value"):
        parse_args([*TINY, "--workload.negative_prompt", "--ugly"])


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["models"], ["models", "--json"], ["run", "--help"], ["doctor", "--help"], ["plan", *TINY]],
)
def test_a_reader_that_stops_reading_is_no_error(argv):
    # The reader has closed the pipe before anything is written.
    process = subprocess.Popen([MLENERGY, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + 13


def test_a_dry_run_of_the_benchmark_into_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        [*BENCHMARK, "--dry_run", *TINY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + 13


def test_completion_in_bash_offers_verbs_options_and_choices(tmp_path):
    script = tmp_path / "mlenergy.bash"
    script.write_bytes(
        subprocess.run([MLENERGY, "--tyro-print-completion", "bash"], capture_output=True).stdout
    )

    def offered(line: str) -> list[str]:
        words = line.replace(":", " : ").split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        program = (
            f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _tyro_mlenergy; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(
            ["bash", "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()

    assert set(offered("mlenergy ")) >= set(VERBS)
    assert offered("mlenergy run --ulysses") == ["--ulysses_degree"]
    assert offered("mlenergy run workload:t2i --workload.batch") == ["--workload.batch_size"]
    assert set(offered("mlenergy plan --workload.dtype ")) >= {"float32", "float16", "bfloat16"}
    assert offered("mlenergy plan --engine x") == ["xdit"]
    assert offered("mlenergy plan --process") == ["--processes"]
    assert offered("mlenergy tune --budget") == ["--budget_s"]
    assert offered("mlenergy sweep --executor s") == ["slurm"]
    assert offered("mlenergy index --o") == ["--out"]
    assert "--fail_if_slower" in offered("mlenergy compare --fail")
    assert offered("mlenergy show --mark") == ["--markdown"]
    assert offered("mlenergy models --j") == ["--json"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_written_for_each_shell(mlenergy, tmp_path, shell):
    code, script, error = mlenergy("--tyro_print_completion", shell)
    assert (code, error) == (0, "")
    assert "--ulysses_degree" in script
    choices = re.findall(r"'choices': \[([^]]*)\]", script.replace("\\'", "'"))
    assert len(choices) > 20 and not [one for one in choices if "None" in one]
    file = tmp_path / "script"
    assert mlenergy("run", "--tyro-write-completion", shell, str(file))[0] == 0
    assert file.read_text().strip() == script.strip()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "--tyro-print-completion",
            "--tyro-print-completion needs one of bash, zsh, fish; see mlenergy --help",
        ),
        (
            "--tyro-print-completion ksh",
            "--tyro-print-completion needs one of bash, zsh, fish; see mlenergy --help",
        ),
        (
            "--tyro-write-completion zsh absent/file",
            "cannot write absent/file: No such file or directory; choose another file",
        ),
    ],
)
def test_a_mistake_about_completion_is_one_line(mlenergy, command, sentence):
    assert mlenergy(*command.split()) == (2, "", f"mlenergy: error: {sentence}\n")


def documented_commands() -> list[str]:
    """Every command line of this project in its documents and start scripts, as one line each."""
    files = [
        ROOT / "README.md",
        ROOT / "Makefile",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "launch").iterdir()),
    ]
    text = "\n".join(file.read_text() for file in files)
    lines = re.sub(r"\\\n#?\s*", "", text).splitlines()
    torchrun = r"torchrun .*(?:benchmark.py|-m mlenergy.diffusion.benchmark) "
    starts = rf"(?:mlenergy (?:run|plan|tune|sweep|show|compare|index) |{torchrun}|launch/\w+\.\w+ )"
    found = [
        re.sub(r"\s# .*", "", match[1])
        for line in lines
        if (match := re.match(rf"[#$\s]*(?:\w+=\S+ )*({starts}.*)", line))
    ]
    return [line for line in found if not re.search(r"…|\$@|<|ulyses", line)]


def test_the_documents_commands_are_found():
    verbs = {line.split()[1] for line in documented_commands() if line.startswith("mlenergy ")}
    assert verbs == {"run", "plan", "tune", "sweep", "show", "compare", "index"}
    assert len(documented_commands()) >= 20


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_is_understood(line):
    words = shlex.split(line)
    if words[:2] == ["mlenergy", "sweep"]:
        parse(SweepArgs, words[2:], "mlenergy sweep")
    elif words[:2] == ["mlenergy", "show"]:
        parse(ShowArgs, words[2:], "mlenergy show")
    elif words[:2] == ["mlenergy", "compare"]:
        parse(CompareArgs, words[2:], "mlenergy compare")
    elif words[:2] == ["mlenergy", "index"]:
        parse(IndexArgs, words[2:], "mlenergy index")
    elif words[:2] == ["mlenergy", "tune"]:
        read_command(words[2:])
    elif words[:2] == ["mlenergy", "plan"]:
        parse(PlanArgs, words[2:], "mlenergy plan")
    else:
        begin = next(
            i
            for i, word in enumerate(words)
            if word.startswith(("--", "workload:")) and not word.startswith("--nproc")
        )
        parse_args([word for word in words[begin:] if word != "--standalone"])
