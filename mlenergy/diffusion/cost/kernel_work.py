"""Work of a call by kind of kernel, as data. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class KernelWork:
    """Work of one call.

    Attributes:
        matmul_flops: of matrix products and convolutions, 2·M·N·K each.
        matmul_flops_per_side: the same, each divided by the smaller of N and K: what small matrices waste.
        matmul_flops_a_row: 2·N·K of each product, whatever M is: what short sequences waste.
        attention_flops: 4 · queries · keys · heads · head width, the width rounded up to a multiple of 32.
        attention_scores: queries · keys · heads: exponentials.
        elementwise_bytes: that all other kernels read and write.
        kernels: launches of any kind.
    """

    matmul_flops: float = 0
    matmul_flops_per_side: float = 0
    matmul_flops_a_row: float = 0
    attention_flops: float = 0
    attention_scores: float = 0
    elementwise_bytes: float = 0
    kernels: float = 0

    def __add__(self, other: KernelWork) -> KernelWork:
        """Work of both."""
        return KernelWork(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})
