"""Class vectors of many patients, released with differential privacy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmepd.methods.parts.case_vectors import CaseVectors
from fedmepd.privacy.clipped_sum import ClippedSum
from fedmepd.privacy.participant import Privacy


def private_means(
    vectors: dict[int, CaseVectors], like: dict[int, Tensor], patients: Sequence[str], privacy: Privacy, seen: float
) -> CaseVectors:
    """Returns the mean vector of each class over the patients, with noise, as the vectors of one case.

    A patient counts once, with the vectors of one examination, all levels and classes together clipped to
    ``privacy.vector_clip``. The number by which the sum is divided is public: a class that a patient does not have
    counts as zero, for how many have it may not be told.

    Args:
        vectors: of one round, by the case's place in the training list; it may be that no patient was drawn.
        like: by level, a tensor of the shape of a case's vectors.
        patients: of each case of that list.
        privacy: of the fusion site; the round is charged.
        seen: with which probability a patient is among those of the round.
    """
    # The last examination of each patient.
    of_patients = {patients[case]: of_case for case, of_case in vectors.items()}
    total = ClippedSum(list(like.values()), privacy.vector_clip)
    for of_patient in of_patients.values():
        total.add([of_patient.by_level[level] for level in like])
    released = total.released(privacy.vector_noise, privacy.random)
    count = len(set(patients)) * seen
    means = {level: (value / count).float() for level, value in zip(like, released, strict=True)}
    return CaseVectors(means, torch.ones(len(next(iter(means.values()))), dtype=torch.bool))
