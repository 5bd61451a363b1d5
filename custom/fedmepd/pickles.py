"""How deeply the values of a pickle are nested, found out without making any of them."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# As a key of a dictionary, a tuple of tuples of tuples ... ends the process: Python goes through it without asking how
# deep it is, and the stack of a process holds some hundred thousand of them. What is written here has fewer than ten.
MOST_NESTED = 1000

# They add to a value that is there already.
_ADDING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_ZIP = b"PK\x03\x04"
# A file of torch before 1.6 begins with so many pickles: magic number, version, machine, content, its storages' names.
_OF_OLD_FILES = 5


def too_deep(path: Path) -> bool:
    """Whether a file of torch's has values that are nested more than :data:`MOST_NESTED` deep.

    Of a damaged file the answer may be no: whoever reads it will say what is wrong.

    Args:
        path: the file.
    """
    try:
        return any(depth > MOST_NESTED for depth in _depths(path))
    except (OSError, ValueError, IndexError, KeyError, zipfile.BadZipFile):
        return False


def _depths(path: Path) -> Iterator[int]:
    with open(path, "rb") as file:
        # As torch tells the two kinds apart.
        is_zip = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        if not is_zip:
            for _ in range(_OF_OLD_FILES):
                yield from _of_pickle(file)
            return
        with zipfile.ZipFile(file) as parts:
            for part in parts.infolist():
                # Each level takes a byte at least.
                if part.filename.endswith("data.pkl") and part.file_size > MOST_NESTED:
                    with parts.open(part) as pickle:
                        yield from _of_pickle(pickle)


def _of_pickle(file: IO[bytes]) -> Iterator[int]:
    """Yields the depth of what each step of the first pickle in a file makes.

    A pickle is a program for a stack. Here the stack holds the depth of each value instead of the value.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for step, argument, _ in pickletools.genops(file):
        taken, made = step.stack_before, step.stack_after
        if step.name == "MARK":
            marks.append(len(stack))
            continue
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
            continue
        if step.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
            continue
        if pickletools.markobject in taken:
            # All above the mark, and what the step takes below it.
            first = marks.pop() - taken.index(pickletools.markobject)
        else:
            first = len(stack) - len(taken)
        if first < 0:
            raise IndexError("a pickle that takes more than there is")
        inside = stack[first:]
        del stack[first:]
        if step.name in _ADDING:
            depth = max(inside[0], 1 + max(inside[1:], default=-1))
        else:
            depth = max(inside, default=0) + bool(inside and made)
        yield depth
        stack += [depth] * len(made)
