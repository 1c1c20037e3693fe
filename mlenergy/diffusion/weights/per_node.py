"""The walk to the weights: one download or one build a node; the others wait, and all fail together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from diffusers import DiffusionPipeline

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import has_architecture
from mlenergy.diffusion.models.hub import ModelFolder, explain, read_model
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.weights.parts import download_parts, parts_elsewhere
from mlenergy.diffusion.weights.pipeline import loader_options
from mlenergy.diffusion.weights.tiny import tiny_folder

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster

_T = TypeVar("_T")


def locate(plan: Plan, cluster: Cluster | None = None) -> ModelFolder | None:
    """The folder on this machine that holds `plan.weights_from`, complete and checked.

    The first rank of each node builds the tiny model or downloads; the others wait and are handed
    what it found. Every rank calls this. From the hub travels only what the pipeline needs, in the
    format that will be loaded.

    cluster: None for a process that is alone.

    Returns:
        None where no file is needed: random weights of an architecture that this package has.

    Raises:
        UserError: the model is unknown or gated, there is no network, files are missing or pickled. Where
            one node fails, all ranks raise its line: none waits for ever.
    """
    if cluster is None:
        return _locate(plan, announce=False)
    return once_a_node(cluster, plan.weights_from, lambda: _locate(plan, announce=cluster.rank.is_main))


def once_a_node(cluster: Cluster, weights: str, find: Callable[[], _T]) -> _T:
    """Call `find` on the first rank of each node, and hand all its ranks what it found. Every rank calls it.

    weights: what is looked for, as messages name it.

    Raises:
        UserError: on every rank, what the first node that failed says.
    """
    rank = cluster.rank
    node = rank.rank - rank.local_rank  # by its first rank: hostnames may repeat in containers
    found: _T | None = None
    failure: str | None = None
    if rank.local_rank == 0:
        try:
            found = find()
        except UserError as error:
            failure = str(error)
        except Exception as error:  # the others wait: they must hear of any failure
            failure = f"{weights} cannot be read: {type(error).__name__}: {error}"
    answers = cluster.all_gather_object((node, rank.local_rank, found, failure))
    for *_, line in answers:
        if line is not None:
            raise UserError(line)
    theirs: _T = next(found for where, local, found, _ in answers if where == node and local == 0)
    return theirs


def _locate(plan: Plan, announce: bool) -> ModelFolder | None:
    if plan.weights == "random":
        return None if has_architecture(plan.weights_from) else read_model(plan.weights_from)
    if is_tiny(plan.weights_from):
        folder = read_model(str(tiny_folder(plan.weights_from)))
    else:
        folder = read_model(plan.weights_from, plan.revision)
    if folder.hub_id is not None:
        if announce:
            print(
                f"weights of {folder.hub_id}: from the hub or its cache; one download a node", file=sys.stderr
            )
        try:
            path = DiffusionPipeline.download(
                folder.hub_id, revision=plan.revision, **loader_options(plan, folder)
            )
        except Exception as error:
            raise explain(error, folder.hub_id, plan.revision) from error
        folder = replace(folder, path=Path(path))
    folder.check(
        variant=plan.variant,
        allow_pickle=plan.allow_pickle,
        trust_remote_code=plan.trust_remote_code,
        elsewhere=frozenset(parts_elsewhere(plan, folder)),
    )
    download_parts(plan, folder)
    return folder
