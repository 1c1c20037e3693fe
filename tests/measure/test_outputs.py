"""Pixels from every rank's device to rank 0, in the batch's order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlenergy.diffusion.engine import Generated
from mlenergy.diffusion.measure.outputs import HostOutput, collect, to_host


def output(first_row, *greys):
    """Images of one pixel, each of one grey."""
    pixels = np.array(greys, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)
    return HostOutput(pixels if greys else None, first_row, 0.0, finite=True)


def gathered(*outputs):
    """Rank 0's pixels, where these are the ranks' outputs."""
    cluster = SimpleNamespace(gather_object=lambda _own: [(one.first_row, one.pixels) for one in outputs])
    return collect(outputs[0], cluster)[:, 0, 0, 0].tolist()


def test_data_parallel_groups_stand_at_their_own_rows():
    assert gathered(output(2, 30, 40), output(0, 10, 20)) == [10, 20, 30, 40]


def test_rows_that_two_ranks_hold_count_once_and_ranks_without_rows_not_at_all():
    assert gathered(output(0, 10), output(0), output(0, 11), output(1, 20)) == [10, 20]


def test_no_output_at_all_is_an_error():
    with pytest.raises(RuntimeError, match="no rank returned an image"):
        gathered(output(0))


def test_other_ranks_get_nothing():
    assert collect(output(0, 10), SimpleNamespace(gather_object=lambda _own: None)) is None


def test_floats_are_rounded_to_bytes_with_channels_last():
    images = torch.tensor([0.0, 0.499 / 255, 0.5, 1.7]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    host = to_host(Generated(images, first_row=4))
    assert host.pixels.shape == (1, 2, 2, 3) and host.pixels.dtype == np.uint8
    assert host.pixels[0, :, :, 0].tolist() == [[0, 0], [128, 255]]
    assert (host.first_row, host.finite) == (4, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_seen(value):
    images = torch.full((1, 3, 2, 2), 0.5)
    images[0, 1, 0, 1] = value
    assert not to_host(Generated(images)).finite
