"""The machine a run uses: device, GPUs, driver, versions, source. Imports no torch."""
