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
# Values that one unfolds to, where the same are in it again and again: a key of 2^60 takes for ever to look up.
_MOST_UNFOLDED = 10**8

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
        with open(path, "rb") as file:
            # As torch tells the two kinds apart.
            is_zip = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            if not is_zip:
                return any(_is_deep(file) for _ in range(_OF_OLD_FILES))
            with zipfile.ZipFile(file) as parts:
                # Each by itself: one that is damaged hides no other. Torch finds them in upper and lower case.
                return any([_is_deep_part(parts, part) for part in parts.infolist() if _is_pickle(part)])
    # A stranger's bytes can make zipfile raise anything.
    except Exception:
        return False


def _is_pickle(part: zipfile.ZipInfo) -> bool:
    return part.filename.lower().endswith("data.pkl")


def _is_deep_part(parts: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with parts.open(part) as pickle:
            return _is_deep(pickle)
    except Exception:
        return False


def _is_deep(file: IO[bytes]) -> bool:
    return any(depth > MOST_NESTED or size > _MOST_UNFOLDED for depth, size in _of_pickle(file))


def _of_pickle(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yields the depth of what each step of the first pickle in a file makes, and how many values it unfolds to.

    A pickle is a program for a stack. Here the stack holds both of each value instead of the value.
    """
    stack: list[tuple[int, int]] = []
    marks: list[int] = []
    memo: dict[int, tuple[int, int]] = {}
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
        depths = [depth for depth, _ in inside]
        if step.name in _ADDING:
            depth = max(depths[0], 1 + max(depths[1:], default=-1))
        else:
            depth = max(depths, default=0) + bool(inside and made)
        size = min(1 + sum(size for _, size in inside), _MOST_UNFOLDED + 1)
        yield depth, size
        stack += [(depth, size)] * len(made)
