import subprocess
import sys

import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.errors import UserError

T2I = ["workload:text-to-image", "--workload.model_id", "tiny/flux"]


def test_hyphens_and_underscores_and_either_side_of_the_workload_are_the_same():
    spellings = [
        ["--ulysses_degree", "2", *T2I, "--workload.batch_size", "4"],
        ["--ulysses-degree", "2", *T2I, "--workload.batch-size", "4"],
        [*T2I, "--ulysses_degree", "2", "--workload.batch_size=4"],
        ["--ulysses_degree", "2", "workload:t2i", *T2I[1:], "--workload.batch_size", "4"],
    ]
    parsed = [parse_args(spelling) for spelling in spellings]
    assert all(args == parsed[0] for args in parsed)
    assert parsed[0].ulysses_degree == 2
    assert parsed[0].workload.batch_size == 4


def test_what_the_user_does_not_say_stays_open_for_the_model():
    args = parse_args(T2I)
    work = args.workload
    assert (args.ulysses_degree, args.ring_degree) == (None, None)
    assert (work.height, work.width, work.inference_steps, work.guidance_scale, work.dtype) == (None,) * 5


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "workload:text-to-image"),
        (["workload:text-to-image"], "required: --workload.model_id"),
        (["workload:text-to-sound"], "workload:text-to-sound"),
        ([*T2I, "--workload.heigt", "64"], "--workload.heigt"),
        ([*T2I, "--workload.height", "tall"], "--workload.height"),
        (["--engine", "vllm", *T2I], "xdit"),
        ([*T2I, "--workload.dtype", "float8"], "float8"),
    ],
)
def test_a_wrong_command_line_gives_one_line(argv, complaint):
    with pytest.raises(UserError) as error:
        parse_args(argv)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("--help")


@pytest.mark.parametrize("command", [["--help"], ["workload:t2i", "--help"]])
def test_help_needs_no_torch(command):
    code = (
        "import sys\nfrom mlenergy.diffusion.config.args import parse_args\n"
        f"try:\n    parse_args({command!r})\nexcept SystemExit as stop:\n    assert stop.code in (0, None)\n"
        "assert 'torch' not in sys.modules and 'xfuser' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
