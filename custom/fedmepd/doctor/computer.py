"""What the machine under a site has: memory, GPU and disks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


class Computer:
    """The machine that this process runs on.

    Args:
        group: folder in which the kernel shows a container's limit of memory (control groups, version 2).
    """

    def __init__(self, group: Path = Path("/sys/fs/cgroup")):
        self._group = group

    def memory(self) -> tuple[int, int]:
        """Returns the total and the free memory for this process in bytes; a container's limit counts."""
        machine = psutil.virtual_memory()
        total, free = machine.total, machine.available
        try:
            limit = int((self._group / "memory.max").read_text())
            used = int((self._group / "memory.current").read_text())
        except (OSError, ValueError):
            return total, free
        return min(total, limit), min(free, max(0, limit - used))

    def gpu(self, device: torch.device) -> tuple[str, int, int]:
        """Returns a GPU's name, its total and its free memory in bytes."""
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.get_device_name(device), total, free

    def disk(self, folder: Path) -> int:
        """Returns a number that is the same for folders on the same disk, whether they exist or will."""
        return _existing(folder).stat().st_dev

    def free_space(self, folder: Path) -> int:
        """Returns the free space on the folder's disk in bytes."""
        return shutil.disk_usage(_existing(folder)).free

    def writable(self, folder: Path) -> bool:
        """Whether this process may write into the folder, or make it."""
        return os.access(_existing(folder), os.W_OK | os.X_OK)


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
