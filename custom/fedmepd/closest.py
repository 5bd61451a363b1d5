"""What a user may have meant by a name that is not known."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

# How many names a message proposes; how like the given one they are at least (difflib's ratio, 0 to 1), and how much
# less than the first one.
_MOST, _LIKENESS, _LESS = 3, 0.6, 0.05


def closest(name: object, known: Iterable[str]) -> list[str]:
    """Returns the known names that are most like a name, the most like one first; upper and lower case are the same.

    Nothing is like a value that is no text: a file from outside may hold anything where a name is expected.

    >>> closest("FedAvgg", ["fedavg", "fedbn", "local"])
    ['fedavg']
    """
    if not isinstance(name, str):
        return []
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower, _MOST, _LIKENESS)
    ratios = [difflib.SequenceMatcher(None, one, name.lower()).ratio() for one in found]
    return [by_lower[one] for one, ratio in zip(found, ratios, strict=True) if ratio >= ratios[0] - _LESS]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name; empty where no known one is like it.

    >>> did_you_mean("evalute", ["evaluate", "export"])
    '; did you mean evaluate?'
    """
    known = list(known)
    words = [word.strip() for word in name.split(",") if word.strip()] if isinstance(name, str) else []
    if len(words) > 1 and set(words) <= set(known):
        return f"; did you mean {' and '.join(words)}, each by itself?"
    return question(closest(name, known))


def question(found: Sequence[str]) -> str:
    """Returns the end of a sentence that proposes names; empty without any."""
    return f"; did you mean {' or '.join(found)}?" if found else ""


def one_of(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: all that are known, and the closest.

    >>> one_of("locl", ["fedavg", "local"])
    'expected one of fedavg, local; did you mean local?'
    """
    names = list(known)
    return f"expected one of {', '.join(names)}{did_you_mean(name, names)}"


def like_path(path: Path) -> str:
    """Returns the end of a sentence about a path that is not there: what is like it in the folder where it would be.

    Args:
        path: of a file or folder; for one that is there the answer is empty.
    """
    path = Path(path)
    if os.path.exists(path):
        return ""
    # Of a/b/c without a/b, it is b that is misspelt.
    while path.parent != path and not os.path.isdir(path.parent):
        path = path.parent
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    return question([str(path.with_name(name)) for name in closest(path.name, names)])
