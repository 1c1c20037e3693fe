"""`mlenergy sweep --print --gpu`: the sum of the runs' forecasts, and the reasons against the rest."""

import re

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.predict import forecast_of
from mlenergy.diffusion.sweep.command import main
from mlenergy.diffusion.sweep.forecast import _model

SWEEP = """
folder: {folder}
common: {{model_id: black-forest-labs/FLUX.1-dev, device: cpu, dtype: bfloat16, benchmark_iters: 3}}
grid: {{batch_size: [1, 2], use_torch_compile: [false, true]}}
"""


@pytest.fixture
def sweep(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(folder=tmp_path / "out"))
    return file


def test_the_sum_and_what_is_left_out(sweep, capsys):
    assert main([str(sweep), "--print", "--gpu", "H100"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "forecast" in line]
    from mlenergy.diffusion.config.args import read_args
    from mlenergy.diffusion.config.resolve import make_plan

    seconds = joules = 0.0
    for batch in ("1", "2"):
        words = ["--dtype", "bfloat16", "--batch_size", batch, "--model_id", "black-forest-labs/FLUX.1-dev"]
        args = read_args(["workload:t2i", *[w.replace("--", "--workload.") for w in words]])
        plan = make_plan(args, _model(args.workload.model_id, None), 1, "cuda", "NVIDIA H100 80GB HBM3")
        found = forecast_of(plan, "H100")
        seconds += 4 * found.duration_s.value
        joules += 4 * int(batch) * found.energy_per_output_j.value
    words = r"# forecast for H100: ([\d.]+) (s|min) \(.*\) in the iterations of 2 runs .*, "
    told = re.match(words + r"([\d.]+) GPU hours, ([\d.,]+) (k?J)", lines[0])
    assert told is not None, lines
    assert float(told[1]) * {"s": 1, "min": 60}[told[2]] == pytest.approx(seconds, rel=0.01)
    assert float(told[3]) * 3600 == pytest.approx(seconds, rel=0.01)
    assert float(told[4].replace(",", "")) * {"J": 1, "kJ": 1000}[told[5]] == pytest.approx(joules, rel=0.01)
    assert lines[1].startswith(
        "# without a forecast: 2 runs: no time can be forecast with --use_torch_compile"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--gpu", "H100"], "for --print"), (["--print", "--gpu", "H1000"], "did you mean H100")],
)
def test_mistakes(sweep, words, says):
    with pytest.raises(UserError, match=says):
        main([str(sweep), *words])
