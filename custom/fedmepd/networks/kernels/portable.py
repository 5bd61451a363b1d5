"""Whether the network uses plain operations only: for export to a runtime without our kernels, or if asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_asked = False


def is_exported() -> bool:
    """Returns whether TorchScript or ONNX is recording the network, or :func:`plain_operations` is at work."""
    return _asked or torch.compiler.is_exporting() or torch.jit.is_tracing()


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Makes networks use plain operations, without dropout in the attention, to measure what our kernels are worth."""
    global _asked
    before, _asked = _asked, True
    try:
        yield
    finally:
        _asked = before
