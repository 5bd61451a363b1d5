"""What the values of label files mean: a class, several classes that a label does not tell apart, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# Of a voxel about whose class a label says nothing: it enters neither loss nor scores.
IGNORE = 255

# Sets of classes that a label does not tell apart; together they hold every class once. Empty: it tells all of them.
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Convention:
    """How a data set writes classes into its label files.

    Args:
        source: who writes labels so, in words.
        classes: the class of each value that a label file may hold, or :data:`IGNORE`. Several values may be of one
            class. Of classes that the label does not tell apart, it is the smallest.
        aliases: other names by which a user may call the convention.
        elsewhere: of values that it does not have but that a related data set uses: what they mean there.
        groups: the classes that the label does not tell apart; empty if it tells all of them.
        by_values: whether labels of a plain folder are read so if their values fit; if not, the user has to say it.
    """

    source: str
    classes: dict[int, int]
    aliases: tuple[str, ...] = ()
    elsewhere: dict[int, str] = field(default_factory=dict)
    groups: Groups = ()
    by_values: bool = True


def known_regions(regions: dict[str, tuple[int, ...]], groups: Groups) -> tuple[str, ...]:
    """Returns the regions that a label with these groups tells: those that cut no group in two.

    >>> known_regions({"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}, ((0,), (1, 3), (2,)))
    ('WT', 'TC')
    """
    return tuple(
        region
        for region, members in regions.items()
        if all(set(group) <= set(members) or not set(group) & set(members) for group in groups)
    )


def grouped(classes: int, together: Iterable[Iterable[int]]) -> Groups:
    """Returns groups of all classes: those that a label does not tell apart, and every other class by itself."""
    groups = [tuple(sorted(group)) for group in together if len(tuple(group)) > 1]
    inside = {number for group in groups for number in group}
    return tuple(sorted([*groups, *((number,) for number in range(classes) if number not in inside)]))
