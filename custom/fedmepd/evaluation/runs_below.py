"""Files of runs far below a folder, for whoever has named a folder above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fedmepd.text_table import natural_order

# How far down it is looked, and in how many folders: somebody may name a whole disk.
_DEEPEST, _MOST_FOLDERS = 8, 5000


def files_below(folder: Path, name: str, *, most_folders: int = _MOST_FOLDERS) -> Iterator[Path]:
    """Yields the files of a name in and below a folder, in natural order; not those behind links and in hidden folders.

    Args:
        folder: to look in.
        name: of the files.
        most_folders: that are looked into.
    """
    top = len(folder.parts)
    for number, (place, folders, files) in enumerate(os.walk(folder), start=1):
        if name in files:
            yield Path(place, name)
        if number == most_folders:
            return
        deeper = len(Path(place).parts) - top < _DEEPEST
        folders[:] = sorted((one for one in folders if deeper and not one.startswith(".")), key=natural_order)
