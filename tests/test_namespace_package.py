"""`mlenergy` is a namespace package: other distributions install subpackages of it beside this one."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BOTH = """
import mlenergy, mlenergy.data, mlenergy.data.records, mlenergy.diffusion
assert mlenergy.__file__ is None, "mlenergy is not a namespace package"
from mlenergy.diffusion.config.args import parse_args
print(mlenergy.diffusion.__file__, mlenergy.diffusion.__version__)
"""


def run(python, *words, cwd):
    return subprocess.run(
        [str(python), *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=300
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy so that no build folder is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    run(sys.executable, *build, str(source), cwd=folder)
    (built,) = folder.glob("mlenergy_diffusion-*.whl")
    return built


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    """Python of an environment that has this package from its wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A path in a .pth file does not run the .pth files of that folder, so the editable install stays hidden.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    install = ("-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index")
    run(sys.executable, *install, "--ignore-installed", str(wheel), cwd=folder)
    return python


def test_no_distribution_owns_the_namespace():
    assert not (ROOT / "mlenergy" / "__init__.py").exists()
    assert (ROOT / "mlenergy" / "diffusion" / "py.typed").exists()


def test_both_import_from_an_editable_install(tmp_path):
    assert metadata.version("mlenergy-data")
    where, version = run(sys.executable, "-c", BOTH, cwd=tmp_path).split()
    assert Path(where) == ROOT / "mlenergy" / "diffusion" / "__init__.py"
    assert version == metadata.version("mlenergy-diffusion")


def test_both_import_from_the_wheel(from_wheel, tmp_path):
    where, version = run(from_wheel, "-c", BOTH, cwd=tmp_path).split()
    assert Path(where).is_relative_to(from_wheel.parents[1])
    assert version == metadata.version("mlenergy-diffusion")


def test_the_wheel_holds_the_data_and_the_command(from_wheel, tmp_path):
    command = from_wheel.with_name("mlenergy")
    for words in ((command,), (from_wheel, "-m", "mlenergy.diffusion")):
        done = subprocess.run(
            [*map(str, words), "plan", "workload:t2i", "--workload.model_id", "black-forest-labs/FLUX.1-dev"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "black-forest-labs/FLUX.1-dev" in done.stdout
        assert "peak memory" in done.stdout  # from the architecture files
    listed = run(
        from_wheel,
        "-c",
        "from importlib.resources import files; root = files('mlenergy.diffusion');"
        "print([(root / name).is_file() for name in"
        " ('py.typed', 'data/prompts.jsonl', 'data/gpu_peaks.json', 'schema/results-v1.json')])",
        cwd=tmp_path,
    )
    assert listed.strip() == "[True, True, True, True]"
