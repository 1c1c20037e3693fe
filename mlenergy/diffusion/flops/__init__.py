"""How much arithmetic a run is: counted by operator without weights, and against seconds and joules.

Importing this needs no torch; counting runs in a process of its own.
"""

from mlenergy.diffusion.flops.cached import counted_costs, counted_workload, known_costs
from mlenergy.diffusion.flops.efficiency import Efficiency, Peak, StageFlops, dense_peak, efficiency
from mlenergy.diffusion.flops.of_plan import architecture_of
from mlenergy.diffusion.flops.workload import Workload, workload_of

__all__ = [
    "Efficiency",
    "Peak",
    "StageFlops",
    "Workload",
    "architecture_of",
    "counted_costs",
    "counted_workload",
    "dense_peak",
    "efficiency",
    "known_costs",
    "workload_of",
]
