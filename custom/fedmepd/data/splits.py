"""Which cases train, which select the model, which test it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedmepd.config import DataSettings
from fedmepd.data.cases import Case
from fedmepd.seeds import derive_seed


@dataclass(frozen=True)
class Split:
    """Three disjoint lists of cases, each sorted by name."""

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def split_cases(cases: Sequence[Case], settings: DataSettings, seed: int, site: str) -> Split:
    """Splits a site's cases by the settings' shares, rounded by largest remainder.

    Every part whose share is not 0 gets at least one case if there are enough: training first, then test, then
    validation. The result depends on the names of the cases, the seed and the site, not on the order of ``cases``.
    """
    order = sorted(cases, key=lambda case: (derive_seed(seed, "split", site, case.name), case.name))
    train, validation, _ = part_sizes(len(order), settings)
    parts = order[:train], order[train : train + validation], order[train + validation :]
    return Split(*(sorted(part, key=lambda case: case.name) for part in parts))


def part_sizes(count: int, settings: DataSettings) -> tuple[int, int, int]:
    """Returns how many of ``count`` cases train, validate and test."""
    # Rounded, since 1 - 0.6 - 0.1 is not quite 0.3, and a tie must be one.
    train, validation = settings.train, settings.validation
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
