"""Which patients train, which select the model, which test it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedmepd.data.cases import Case
from fedmepd.data.manifest import Part
from fedmepd.seeds import derive_seed


class Shares(Protocol):
    """The part of :class:`fedmepd.config.DataSettings` that a split needs: shares of the patients. The rest is for
    testing.
    """

    train: float
    validation: float


@dataclass(frozen=True)
class Split:
    """Three disjoint lists of cases, each sorted by name."""

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def split_cases(cases: Sequence[Case], shares: Shares, seed: int, site: str) -> Split:
    """Splits a site's cases by patient: all examinations of one go to the same part.

    The result depends on the patients' names, the seed and the site, not on the order of ``cases``.
    """
    return sort_into_parts(cases, split_patients((case.patient for case in cases), shares, seed, site))


def sort_into_parts(cases: Iterable[Case], parts: Mapping[str, Part]) -> Split:
    """Returns cases by their patients' parts."""
    split = Split([], [], [])
    for case in sorted(cases, key=lambda case: case.name):
        getattr(split, parts[case.patient]).append(case)
    return split


def some_cases(cases: Sequence[Case], share: float, seed: int) -> list[Case]:
    """Returns a share of cases, at least one of any, in their order. A smaller share is a part of a larger one.

    The result depends on the cases' names and the seed.
    """
    count = max(1, round(len(cases) * share))
    first = sorted(cases, key=lambda case: (derive_seed(seed, "share", case.name), case.name))[:count]
    chosen = {case.name for case in first}
    return [case for case in cases if case.name in chosen]


def split_patients(
    patients: Iterable[str], shares: Shares, seed: int, site: str, kept: Mapping[str, Part] | None = None
) -> dict[str, Part]:
    """Assigns every patient a part, by the shares, rounded by largest remainder.

    Every part whose share is not 0 gets at least one patient if there are enough: training first, then test, then
    validation.

    Args:
        patients: their names; repeated ones count once.
        shares: of training and validation.
        seed, site: determine the assignment.
        kept: parts of patients that were assigned before. They do not change.
    """
    kept = dict(kept or {})
    order = sorted(set(patients), key=lambda patient: (derive_seed(seed, "split", site, patient), patient))
    assigned = {patient: kept[patient] for patient in order if patient in kept}
    sizes = dict(zip(("train", "validation", "test"), part_sizes(len(order), shares), strict=True))
    room = {part: size - list(assigned.values()).count(part) for part, size in sizes.items()}
    for patient in order:
        if patient not in assigned:
            part = next(part for part, left in room.items() if left > 0)
            assigned[patient] = part
            room[part] -= 1
    return assigned


def part_sizes(count: int, shares: Shares) -> tuple[int, int, int]:
    """Returns how many of ``count`` patients train, validate and test."""
    # Rounded, because 1 - 0.6 - 0.1 is not exactly 0.3 and ties must be detected.
    train, validation = shares.train, shares.validation
    quotas = [round(count * share, 6) for share in (train, max(0.0, 1 - train - validation), validation)]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(3), key=lambda part: (sizes[part] - quotas[part], -part))
    for part in by_remainder[: count - sum(sizes)]:
        sizes[part] += 1
    for part in range(min(3, count)):
        if sizes[part] == 0 and quotas[part] > 0:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[part] += 1
    return sizes[0], sizes[2], sizes[1]
