"""Runs on a file system that fills up or is lost; `unshare --mount` starts it, so its mounts end with it.

Its argument is an empty folder; what each run said goes to outcomes.json beside that folder, and so does a
copy of the result folder as the runs left it, since the file system goes with this process.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

RUN = [sys.executable, "-m", "mlenergy.diffusion.benchmark", "--engine", "diffusers"]
TINY = ["workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]
TINY += ["--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "2"]
SIZE_BYTES = 1 << 20
LEFT_BYTES = 56 << 10  # room for the log, the status, the numbers and the requests, not for four images more


def start(base: Path, *options: str) -> subprocess.Popen[str]:
    """A run in the background; the same result folder each time."""
    return subprocess.Popen(
        [*RUN, *options, *TINY, "--workload.base_dir", str(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(run: subprocess.Popen[str]) -> dict:
    """Wait for its end: exit code and words."""
    out, err = run.communicate(timeout=240)
    return {"code": run.returncode, "out": out, "err": err}


def leave(base: Path, left_bytes: int) -> None:
    """Fill the file system but for so many bytes."""
    with (base / "filler").open("wb") as file:
        while (room := shutil.disk_usage(base).free - left_bytes) > 0:
            try:
                file.write(bytes(min(room, 4096)))
                file.flush()
            except OSError:
                break


def wait_until_loading(base: Path, run: subprocess.Popen[str]) -> Path:
    """Until the run has begun its work, or has ended; its result folder."""
    while run.poll() is None:
        for file in base.glob("*/status.json"):
            with contextlib.suppress(ValueError):
                status = json.loads(file.read_text())
                if status["pid"] == run.pid and status["state"] == "running":
                    return file.parent
        time.sleep(0.02)
    raise RuntimeError(run.communicate()[1])


def mount(*words: str) -> None:
    """Raises where the kernel refuses."""
    subprocess.run(["mount", *words], check=True)


def main(base: Path) -> None:
    """A whole run beside one whose folder goes; one that finds the disk nearly full; one that loses it."""
    mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(base))
    outcomes, kept = {}, base.parent
    runs = [start(base), start(base, "--benchmark_iters", "3")]
    gone = wait_until_loading(base, runs[1])
    gone.rename(base / "moved")
    outcomes["whole"], outcomes["moved"] = map(outcome, runs)
    outcomes["moved"]["made_anew"] = gone.exists()
    shutil.move(base / "moved", kept)
    (folder,) = (file.parent for file in base.glob("*/results.json"))
    shutil.copytree(folder, kept / "whole")

    leave(base, LEFT_BYTES)
    outcomes["full"] = outcome(start(base, "--overwrite_results"))
    shutil.copytree(folder, kept / "full")

    (base / "filler").unlink()
    run = start(base, "--overwrite_results")
    wait_until_loading(base, run)
    leave(base, 0)  # what writes on to open files gets no further either
    mount("--bind", str(base), str(base))
    mount("-o", "remount,bind,ro", str(base))
    outcomes["lost"] = outcome(run)
    shutil.copytree(folder, kept / "lost")
    (kept / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
