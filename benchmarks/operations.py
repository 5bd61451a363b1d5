"""How many operations a step takes, and how many a second this machine can do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.task import synchronise

GIGA = 1e9
# The parts of a network, by the names of their modules.
PARTS = {
    "Encoder": "encoders",
    "AuxiliaryDecoder": "auxiliary decoder",
    "FusionDecoder": "fusion decoder",
    "Calibration": "calibration",
}
OTHER = "other"


def count(work: Callable[[], Any]) -> float:
    """Runs ``work`` once; returns the billions of operations of its convolutions and matrix products.

    A multiplication and the addition after it are two operations.
    """
    return sum(_count(work)["Global"].values()) / GIGA


def count_by_part(work: Callable[[], Any]) -> dict[str, float]:
    """Does as :func:`count`, for each part of a network. ``work`` is a forward pass: gradients have no part."""
    with torch.no_grad():
        found = {name: sum(by_kind.values()) / GIGA for name, by_kind in _count(work).items()}
    parts = {title: found.get(name, 0.0) for name, title in PARTS.items()}
    # Calibration runs inside the decoder's pass.
    parts["fusion decoder"] = max(0.0, parts["fusion decoder"] - parts["calibration"])
    return parts | {OTHER: found["Global"] - sum(parts.values())}


def _count(work: Callable[[], Any]) -> dict[str, dict[Any, int]]:
    # The operation is PyTorch's own, but PyTorch does not count it.
    more = {torch.ops.aten.mkldnn_convolution: _of_convolution}
    counter = FlopCounterMode(display=False, depth=1, custom_mapping=more)
    with counter:
        work()
    return counter.get_flop_counts()


def _of_convolution(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Shapes are given, of the result too."""
    return conv_flop_count(x, weight, out_shape)


def matrix_rate(dtype: torch.dtype, device: str, side: int, repeats: int = 7) -> float:
    """Returns billions of operations a second of a product of two square matrices; the median of several."""
    first, second = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))

    def seconds() -> float:
        started = time.perf_counter()
        torch.mm(first, second)
        synchronise(device)
        return time.perf_counter() - started

    seconds()
    return 2 * side**3 / GIGA / statistics.median(seconds() for _ in range(repeats))
