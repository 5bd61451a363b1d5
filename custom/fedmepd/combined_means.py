"""What means over several sets of patients tell together.

Whoever knows the means over some sets knows every sum of multiples of them. Such a combination is about the patients
who do not cancel out in it: that of {a, b, c, d} less that of {a, b, c} is about d alone. So the sets span a space, and
what is told of a few patients is a vector in it that is zero for all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Choices of groups that are looked at one by one. A hospital with few sets needs a handful.
_MOST_CHOICES = 100_000
# How near to 1 an eigenvalue is 1. Rounding leaves 1e-12, and what nearly tells of a few tells of them.
_NEAR = 1e-6


def tells_of_few(asked: frozenset[str], known: Sequence[frozenset[str]], fewest: int) -> bool:
    """Whether a mean tells of fewer patients than ``fewest``, alone or in any combination with others.

    All are taken for means of one quantity, such as one model's scores. Where there are too many groups of patients to
    be sure, the answer is yes.

    Args:
        asked: the patients behind the mean.
        known: those behind the others. What these tell without the mean does not count.
        fewest: patients, at least 1.

    >>> tells_of_few(frozenset("abc"), [frozenset("abcd")], 3)
    True
    >>> tells_of_few(frozenset("abc"), [frozenset("abcdef")], 3)
    False
    """
    if len(asked) < fewest:
        # A mean over nobody tells nothing.
        return bool(asked)
    # Patients who are in the same sets count alike in every combination: they all cancel out, or none does.
    groups = _groups([asked, *known])
    rows = np.array([inside for inside, _ in groups], dtype=float).T
    after, before = _projector(rows), _projector(rows[1:])
    choices: dict[int, list[tuple[int, ...]]] = {}
    for number, chosen in enumerate(_choices([size for _, size in groups], after.diagonal().tolist(), fewest - 1)):
        if number == _MOST_CHOICES:
            return True
        choices.setdefault(len(chosen), []).append(chosen)
    return any(
        (_vectors_within(places, after) > _vectors_within(places, before)).any()
        for places in map(np.array, choices.values())
    )


def _groups(sets: Sequence[frozenset[str]]) -> list[tuple[tuple[bool, ...], int]]:
    """Groups the patients by the sets that they are in: which ones, and how many patients."""
    counts: dict[tuple[bool, ...], int] = {}
    for patient in frozenset[str]().union(*sets):
        inside = tuple(patient in one for one in sets)
        counts[inside] = counts.get(inside, 0) + 1
    return sorted(counts.items())


def _choices(sizes: Sequence[int], shares: Sequence[float], most: int) -> Iterator[tuple[int, ...]]:
    """Yields choices of groups with at most ``most`` patients together, of which something may be told.

    Args:
        sizes: patients of each group.
        shares: of each group, the projector's diagonal: how much of a group the space can tell. If it can tell all of
            something about some groups, their shares are 1 together, or more.
        most: patients.

    Yields:
        choices; each whose shares reach 1 is one of them, or a part of one.
    """
    small = sorted((place for place, size in enumerate(sizes) if size <= most), key=lambda place: -shares[place])

    def extended(chosen: tuple[int, ...], start: int, left: int, share: float) -> Iterator[tuple[int, ...]]:
        further = [number for number in range(start, len(small)) if sizes[small[number]] <= left]
        for number in further:
            place = small[number]
            if share + left * shares[place] < 1 - _NEAR:
                # Nor do those after it have more.
                break
            yield from extended((*chosen, place), number + 1, left - sizes[place], share + shares[place])
        if not further and share >= 1 - _NEAR:
            yield chosen

    return extended((), 0, most, 0.0)


def _projector(rows: np.ndarray) -> np.ndarray:
    """Projects onto the space that rows of (sets, groups) span."""
    if not len(rows):
        return np.zeros((rows.shape[1], rows.shape[1]))
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    spanning = directions[values > values[0] * max(rows.shape) * np.finfo(float).eps]
    return spanning.T @ spanning


def _vectors_within(places: np.ndarray, projector: np.ndarray) -> np.ndarray:
    """Counts the independent vectors of a space that are zero outside of some groups, by row of (choices, groups).

    These are what its projector, cut down to the groups, leaves as it is.
    """
    return (np.linalg.eigvalsh(projector[places[:, :, None], places[:, None, :]]) > 1 - _NEAR).sum(axis=1)
