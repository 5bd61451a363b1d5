"""Whether the network is being written down for another runtime, which has none of our kernels."""

from __future__ import annotations

import torch


def is_exported() -> bool:
    """Whether TorchScript or ONNX records what the network does: then it does it in plain operations."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
