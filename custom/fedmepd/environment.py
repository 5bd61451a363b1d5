"""The versions and the machine that a run was made with, so that it can be repeated."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any


def versions(packages: Iterable[str] = ("torch", "monai", "nvflare", "numpy", "nibabel")) -> dict[str, str]:
    """Returns the versions of Python and of those packages that are installed, by name.

    Args:
        packages: by default those that a run's numbers depend on.
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str, threads: int) -> dict[str, Any]:
    """Returns the kind of machine that a run's times and last bits depend on; nothing that tells whose it is.

    Args:
        device: that the networks are on, such as ``cpu``.
        threads: CPU threads that they use.
    """
    return {"cpu": _processor(), "threads": threads, "device": device}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name", platform.machine())
    return f"{name} (family {values['cpu family']}, model {values['model']})" if "cpu family" in values else name
