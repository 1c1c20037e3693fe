"""One download (or one build) a node: the others wait, and all fail together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import local_folder

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster


def prepare_weights(plan: Plan, cluster: Cluster) -> str:
    """Local folder of `plan.weights_from`, complete when this returns on any rank; as it is for random ones.

    The first rank of each node builds the tiny model or downloads; the others wait. Every
    rank calls this. Where one node fails, all ranks raise its UserError: none waits for ever.
    """
    if plan.weights == "random":
        return plan.weights_from
    rank = cluster.rank
    node = rank.rank - rank.local_rank  # by its first rank: hostnames may repeat in containers
    folder, failure = _attempt(plan, rank.is_main) if rank.local_rank == 0 else (None, None)
    answers = cluster.all_gather_object((node, folder, failure))
    for _, _, line in answers:
        if line is not None:
            raise UserError(line)
    return str(next(there for where, there, _ in answers if where == node and there is not None))


def random_facts(pipeline: object, cluster: Cluster) -> dict[str, Any]:
    """What building random weights took on this rank, for the results; empty for weights that were loaded.

    Every rank calls it: the ranks compare what they hold.

    Raises:
        UserError: on every rank, where two hold different weights.
    """
    from mlenergy.diffusion.weights.random.pipeline import start_report

    report = start_report(pipeline)
    if report is None:
        return {}
    prints = cluster.all_gather_object(report.fingerprint)
    for rank, found in enumerate(prints):
        if found != prints[0]:
            raise UserError(
                f"ranks 0 and {rank} made different random weights; give all nodes the same kind of device "
                "and the same version of torch"
            )
    return {"random_weights": report.as_dict()}


def _attempt(plan: Plan, speaks: bool) -> tuple[str | None, str | None]:
    """Folder, or the reason there is none."""
    from mlenergy.diffusion.weights.pipeline import local_weights

    try:
        if speaks and local_folder(plan.weights_from) is None:
            print(
                f"weights of {plan.weights_from}: from the hub or its cache; one download a node",
                file=sys.stderr,
            )
        return str(local_weights(plan)), None
    except UserError as error:
        return None, str(error)
    except Exception as error:  # the others wait: they must hear of any failure
        return None, f"{plan.weights_from} cannot be read: {type(error).__name__}: {error}"
