"""What libraries print while their output goes to a log."""

import subprocess
import sys

BARS = """
import sys, time
from pathlib import Path
from mlenergy.diffusion.supervision.terminal import redirect_output
with redirect_output(Path(sys.argv[1]), debug=False):
    from tqdm.auto import tqdm
    for _ in tqdm(range(3), desc="outer"):
        for _ in tqdm(range(1000), desc="inner"):
            time.sleep(0.0002)
"""


def test_bars_of_libraries_leave_no_cursor_movements_in_the_log(tmp_path):
    log = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", BARS, str(log)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    text = log.read_text()
    assert "inner: 100%" in text and "outer: 100%" in text
    assert "\x1b" not in text
    assert len(text) < 2000  # each of the 3000 steps would be a line
