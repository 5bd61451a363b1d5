"""Class vectors of the fusion site's cases, of which class anchors are made (algorithm section 3.6)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedmepd.training.epoch import Step, class_vectors


@dataclass
class CaseVectors:
    """Class vectors of one fusion case in one round: by level (classes, C_l), and which classes its crop contained."""

    by_level: dict[int, Tensor]
    there: Tensor


class CaseVectorCollector:
    """Keeps the class vectors of every case that is trained on: :meth:`observe` is called after every step.

    Attributes:
        vectors: by the case's index in the training list, on the CPU; the latest of each case.
    """

    def __init__(self) -> None:
        self.vectors: dict[int, CaseVectors] = {}

    def observe(self, step: Step) -> None:
        """Takes in the features of a step."""
        by_level, there = class_vectors(step.outputs.features, step.label, len(step.network.task.classes))
        for place, case in enumerate(step.batch.cases):
            vectors = {level: rows[place].cpu() for level, rows in by_level.items()}
            self.vectors[case] = CaseVectors(vectors, there[place].cpu())
