"""The versions that a run was made with, so that it can be repeated."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata


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
