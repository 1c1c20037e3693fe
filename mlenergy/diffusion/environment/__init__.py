"""What the run stands on: device, driver, versions, source, machine. Imports no torch."""

from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.environment.record import environment_record, node_record

__all__ = ["detect_device", "environment_record", "node_record"]
