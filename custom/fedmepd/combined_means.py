"""What means over several sets of cases tell together.

Whoever knows the means over some sets knows every sum of multiples of them. That of {a, b, c, d} less that of {a, b, c}
is about d alone. So the sets span a space with an axis for each case, and a combination is a direction in it. How much
of the square of its length lies on the cases of some patients is how well it tells of these. 1 is their scores alone.
Where scores vary independently and alike, the rest to 1 is the share of their variance that stays unknown.

A mean over ``fewest`` patients has j / ``fewest`` on any j of them, and that is what a site agrees to tell. No
combination may leave less than half as much unknown of fewer patients than ``fewest``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Literal

import numpy as np

# Choices of patients that are looked at one by one. A hospital with few sets needs a handful.
_MOST_CHOICES = 100_000
_AT_ONCE = 1000
# Beside rounding, which leaves 1e-12.
_NEAR = 1e-6

Verdict = Literal["few", "unsure"]


def tells_of_few(
    asked: Collection[str], known: Sequence[Collection[str]], fewest: int, patient_of: Mapping[str, str]
) -> Verdict | None:
    """Finds out whether a mean tells of fewer patients than ``fewest``, alone or in any combination with others.

    All are taken for means of one quantity, such as one model's scores.

    Args:
        asked: the cases behind the mean.
        known: those behind the others. What these tell without the mean does not count.
        fewest: patients, at least 1.
        patient_of: the patient of each case.

    Returns:
        ``few``: it tells of fewer; ``unsure``: there are too many choices of patients to find out; or None.

    >>> own = {case: case for case in "abcdef"}
    >>> tells_of_few("abc", ["abcd"], 3, own)
    'few'
    >>> tells_of_few("abc", ["abcdef"], 3, own)
    """
    if not asked:
        # A mean over nobody tells nothing.
        return None
    if len({patient_of[case] for case in asked}) < fewest:
        return "few"
    patients = _Patients([frozenset(asked), *map(frozenset, known)], patient_of, fewest - 1)
    left = _MOST_CHOICES
    for count in range(1, fewest):
        limit = (1 + count / fewest) / 2
        choices = patients.choices(count, limit)
        while some := list(islice(choices, _AT_ONCE)):
            left -= len(some)
            if left < 0:
                return "unsure"
            if patients.exceed(some, limit):
                return "few"
    return None


class _Patients:
    """Those behind some means, and how much of any combination can lie on them.

    Cases that are in the same sets are one group: they count alike in every combination. Patients with as many cases in
    every group cannot be told apart, and of more than ``most`` such patients the others add nothing.

    Args:
        sets: cases; the first is that of the mean that is asked for.
        patient_of: the patient of each case.
        most: patients that are looked at together.
    """

    def __init__(self, sets: Sequence[frozenset[str]], patient_of: Mapping[str, str], most: int):
        inside = {case: tuple(case in one for one in sets) for case in sorted(frozenset[str]().union(*sets))}
        groups = {group: place for place, group in enumerate(sorted(set(inside.values())))}
        sizes = np.bincount([groups[group] for group in inside.values()]).astype(float)
        rows = np.array(list(groups), dtype=float).T * np.sqrt(sizes)
        self._after, self._before = (_projector(of) / np.sqrt(np.outer(sizes, sizes)) for of in (rows, rows[1:]))
        cases: dict[str, Counter[int]] = {}
        for case, group in inside.items():
            cases.setdefault(patient_of[case], Counter())[groups[group]] += 1
        alike = Counter(tuple(sorted(of.items())) for of in cases.values())
        #: Of each patient the cases in each group.
        self._cases = [dict(kind) for kind, number in alike.items() for _ in range(min(number, most))]
        self._kinds = [place for place, number in enumerate(alike.values()) for _ in range(min(number, most))]
        counts = np.zeros((len(self._cases), len(sizes)))
        for patient, of in enumerate(self._cases):
            counts[patient, list(of)] = list(of.values())
        #: How much any two have in common, and each alone, at most: the norms of the projector's blocks.
        self._common = np.sqrt(counts @ (self._after**2) @ counts.T)

    def choices(self, count: int, limit: float) -> Iterator[tuple[int, ...]]:
        """Yields choices of patients; each on whom more than ``limit`` of a combination can lie is one of them.

        Such a choice has a patient with whom all of it has more than the limit in common (Gershgorin's circles).
        """
        alone = self._common.diagonal()
        others = np.sort(self._common - np.diag(alone), axis=1)
        most = alone + others[:, max(len(alone) - count + 1, 0) :].sum(axis=1)
        for first in np.flatnonzero(most > limit - _NEAR):
            yield from self._with(int(first), count, limit - _NEAR)

    def _with(self, first: int, count: int, limit: float) -> Iterator[tuple[int, ...]]:
        common = self._common[first]
        # Of those who cannot be told apart, the first one first.
        order = [int(place) for place in np.argsort(-common, kind="stable") if place != first]
        sums = [0.0, *accumulate(common[order].tolist())]

        def extended(chosen: tuple[int, ...], start: int, shared: float) -> Iterator[tuple[int, ...]]:
            left = count - len(chosen)
            if not left or start == len(order):
                yield chosen
                return
            skipped = None
            for number in range(start, len(order)):
                if shared + sums[min(number + left, len(order))] - sums[number] <= limit:
                    # Nor do those after it have more.
                    break
                place = order[number]
                if self._kinds[place] == skipped:
                    continue
                yield from extended((*chosen, place), number + 1, shared + common[place])
                skipped = self._kinds[place]

        yield from extended((first,), 0, float(common[first]))

    def exceed(self, choices: Sequence[tuple[int, ...]], limit: float) -> bool:
        """Whether more of a combination lies on any of some choices of patients than did without the mean."""
        cases = [sum((Counter(self._cases[place]) for place in chosen), Counter()) for chosen in choices]
        widest = max(map(len, cases))
        groups, counts = np.zeros((len(cases), widest), dtype=int), np.zeros((len(cases), widest))
        for row, of in enumerate(cases):
            groups[row, : len(of)], counts[row, : len(of)] = list(of), list(of.values())
        scale = np.sqrt(counts[:, :, None] * counts[:, None, :])
        after, before = (
            np.maximum(np.linalg.eigvalsh(of[groups[:, :, None], groups[:, None, :]] * scale) - limit, 0).sum(axis=1)
            for of in (self._after, self._before)
        )
        return bool((after > before + _NEAR).any())


def _projector(rows: np.ndarray) -> np.ndarray:
    """Projects onto the space that rows of (sets, groups) span."""
    if not len(rows):
        return np.zeros((rows.shape[1], rows.shape[1]))
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    spanning = directions[values > values[0] * max(rows.shape) * np.finfo(float).eps]
    return spanning.T @ spanning
