"""Whether the network is being exported to another runtime, which does not have our kernels."""

from __future__ import annotations

import torch


def is_exported() -> bool:
    """Returns whether TorchScript or ONNX is recording the network, which then uses plain operations only."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
