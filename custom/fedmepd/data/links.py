"""Folders with nothing in them, links that lead to nothing, and other things that hold no case."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fedmepd.data.findings import Finding, note, warning


def describe_nothing(path: Path) -> str:
    """Says why nothing can be found at a path: it is an empty folder, a link to one, or a link that leads nowhere.

    Returns:
        a description; empty for everything else.
    """
    try:
        target = f"a link to {os.readlink(path)}, which " if path.is_symlink() else ""
        if not _may_be_there(path):
            return f"{target or 'it '}is not there"
        # What systems hide, such as .DS_Store, is nothing.
        if path.is_dir() and all(child.name.startswith(".") for child in path.iterdir()):
            return f"{target or 'it '}is empty"
    except OSError:
        # What cannot be read is said where it is read.
        return ""
    return ""


def _may_be_there(path: Path) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        # It cannot be looked at.
        return True
    except OSError:
        return False
    return True


def identity(
    file: Path, status_of: Callable[[Path], os.stat_result] = os.stat
) -> tuple[int, int] | tuple[int, str] | None:
    """Returns what is the same for all names of a file, symbolic and hard links: disk and number there.

    Args:
        file: the file.
        status_of: asks the file system.

    Returns:
        None if nothing is there. Some network shares number no files, so that all would be the same one: there it is
        the path behind all symbolic links.
    """
    try:
        status = status_of(file)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else (status.st_dev, os.path.realpath(file))


def no_case_in(path: Path) -> Finding | None:
    """Returns what is to be said of a sub-folder of a data set that can hold no case; None if it may hold some."""
    if why := describe_nothing(path):
        return warning("empty folder, or link to nothing", f"{path}: {why}")
    if path.is_dir() and not any(child.is_dir() for child in path.iterdir()):
        return note("folder without an image, passed over", f"{path} holds no image")
    return None


def images_beside(images: Sequence[Path]) -> list[Finding]:
    """Says of images that lie beside the folders of cases that they are passed over."""
    if not images:
        return []
    more = f" and {len(images) - 1} more" if len(images) > 1 else ""
    text = f"{images[0]}{more}: put the images of each case into a folder of its own"
    return [warning("image beside the folders of cases, passed over", text)]
