"""What a pickle from a stranger would make, found out without making any of it."""

from __future__ import annotations

import codecs
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fedmepd.errors import plain_text

# As a key of a dictionary, a tuple of tuples of tuples ... ends the process: Python goes through it without asking how
# deep it is, and the stack of a process holds some hundred thousand of them. What is written here has fewer than ten.
MOST_NESTED = 1000
# Values that one unfolds to, where the same are in it again and again: a key of 2^60 takes for ever to look up.
_MOST_UNFOLDED = 10**8

_STORAGES = "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long Short".split()
# What models are made of. Torch's own list also has types that take any amount of memory when they are called with a
# number, and functions that copy a tensor of a few bytes and any shape, or encode a text for hours.
_OF_TENSORS = frozenset(
    [
        "collections OrderedDict",
        "torch Size",
        "torch.nn.parameter Parameter",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        *(f"torch {kind}Storage" for kind in _STORAGES),
    ]
)
# What published checkpoints have besides: arrays of numpy's, whose bytes are a text and its encoding.
_OF_ARRAYS = frozenset(
    [
        "_codecs encode",
        "numpy dtype",
        "numpy ndarray",
        *(f"numpy.{core}.multiarray {made}" for core in ("core", "_core") for made in ("_reconstruct", "scalar")),
    ]
)
# Their time grows with the square of the text: hours for a megabyte.
_SLOW_ENCODINGS = {"punycode", "idna"}
# They make something by a name that is no argument of theirs. Torch writes none, and reads only some.
_UNNAMED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}

# They add to a value that is there already.
_ADDING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_ZIP = b"PK\x03\x04"
# A file of torch before 1.6 begins with so many pickles: magic number, version, machine, content, its storages' names.
_OF_OLD_FILES = 5


class Refused(Exception):
    """A file has what no file of ours or of the authors' has; the text says what."""


def require_plain(path: Path, arrays: bool = False) -> None:
    """Refuses a file of torch's that would take any time or memory to read, or end the process.

    Args:
        path: the file.
        arrays: whether it may hold numpy's, of whose size nothing is known before they are made.

    Raises:
        Refused: it has values that are nested too deep, or makes something else than tensors and plain values.
        pickle.UnpicklingError: it is damaged, or another kind of file.
    """
    try:
        with open(path, "rb") as file:
            # As torch tells the two kinds apart.
            is_zip = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            if not is_zip:
                for _ in range(_OF_OLD_FILES):
                    _require_plain(file, arrays)
                return
            with zipfile.ZipFile(file) as parts:
                # Torch finds it in upper and lower case, and among several takes one.
                for part in filter(_is_pickle, parts.infolist()):
                    with parts.open(part) as content:
                        _require_plain(content, arrays)
    except Refused:
        raise
    # A stranger's bytes can make zipfile and pickletools raise anything.
    except Exception as error:
        raise pickle.UnpicklingError("damaged") from error


def _is_pickle(part: zipfile.ZipInfo) -> bool:
    return part.filename.lower().endswith("data.pkl")


def _require_plain(file: IO[bytes], arrays: bool) -> None:
    known = _OF_TENSORS | _OF_ARRAYS if arrays else _OF_TENSORS
    for step, argument, depth, size in _of_pickle(file):
        if depth > MOST_NESTED or size > _MOST_UNFOLDED:
            raise Refused(f"its values are nested more than {MOST_NESTED} deep, which none is")
        if step in _UNNAMED:
            raise Refused(f"it makes something by {step}, which none does")
        if step == "GLOBAL" and argument not in known:
            raise Refused(f"it makes {plain_text(str(argument).replace(' ', '.'))}, which none has")
        if arrays and isinstance(argument, str) and _is_slow_encoding(argument):
            raise Refused(f"it holds the text {plain_text(argument)}, an encoding that none has")


def _is_slow_encoding(text: str) -> bool:
    try:
        return codecs.lookup(text).name in _SLOW_ENCODINGS
    except (LookupError, ValueError):
        return False


def _of_pickle(file: IO[bytes]) -> Iterator[tuple[str, object, int, int]]:
    """Yields each step of the first pickle in a file, its argument, and how deep and how large is what it makes.

    The size is the number of values that it unfolds to. A pickle is a program for a stack. Here the stack holds depth
    and size of each value instead of the value.
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
        yield step.name, argument, depth, size
        stack += [(depth, size)] * len(made)
