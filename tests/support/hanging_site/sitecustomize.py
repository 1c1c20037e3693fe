"""Put on PYTHONPATH by a test: rank 1 never comes back from its third call (one warm-up, two windows)."""

import os
import time

if os.environ.get("HANGING_RANK") is not None and os.environ.get("RANK") == os.environ["HANGING_RANK"]:
    from mlenergy.diffusion.measure import session

    real, calls = session.run_window, []

    def run_window(*args, **kwargs):
        calls.append(1)
        while len(calls) == 3:
            time.sleep(1)
        return real(*args, **kwargs)

    session.run_window = run_window
