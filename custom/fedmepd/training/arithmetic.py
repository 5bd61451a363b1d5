"""The choice of fast arithmetic on this machine: device, precision and threads."""

from __future__ import annotations

import contextlib

import torch


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Mixed precision for the forward pass.

    Args:
        device: where the network is.
        precision: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 on hardware that supports it.
    """
    enabled = chosen_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def chosen_precision(device: torch.device, precision: str) -> str:
    """Returns ``float32`` or ``bfloat16``: what a setting of :func:`autocast` comes to on a device."""
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def use_threads(count: int, most: int | None = None) -> None:
    """Sets the number of CPU threads; 0 keeps PyTorch's choice. The last bits of a result depend on it.

    Args:
        count: that the job asks for.
        most: that the site allows; None: any number.
    """
    wanted = count or torch.get_num_threads()
    allowed = wanted if most is None else min(wanted, most)
    if count or allowed < wanted:
        torch.set_num_threads(allowed)


def device_name(device: torch.device) -> str:
    """Returns what results call a device: ``cpu``, or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
