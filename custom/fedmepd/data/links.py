"""Folders with nothing in them, and links that lead to nothing."""

from __future__ import annotations

import os
from pathlib import Path


def describe_nothing(path: Path) -> str:
    """Says why nothing can be found at a path: it is an empty folder, a link to one, or a link that leads nowhere.

    Returns:
        a description; empty for everything else.
    """
    try:
        target = f"a link to {os.readlink(path)}, which " if path.is_symlink() else ""
        if not os.path.exists(path):
            return f"{target or 'it '}is not there"
        # What systems hide, such as .DS_Store, is nothing.
        if path.is_dir() and all(child.name.startswith(".") for child in path.iterdir()):
            return f"{target or 'it '}is empty"
    except OSError:
        # What cannot be read is said where it is read.
        return ""
    return ""
