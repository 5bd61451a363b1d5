"""Class anchors of the fusion site (paper section 3.4; algorithm section 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedmepd.methods.parts.case_vectors import CaseVectors
from fedmepd.seeds import derive_seed


class Anchors:
    """A few mean features of each class at each level.

    K-means on the deepest level's vectors decides once which case belongs to which anchor of a class; a case whose crop
    held the class for the first time later joins the nearest cluster then. A cluster that has never had a vector has no
    anchor: the sites attend to those that exist.

    Beyond the paper, no anchor ever is a mean over fewer than ``fewest`` patients, since anchors leave the fusion site:
    a smaller cluster is given up, its cases join the nearest of the others, and a round in which fewer patients of a
    cluster held the class does not move its anchor.

    Args:
        per_class: clusters of each class at most, N_k.
        ema: share of the old anchor kept in each round after the first.
        seed: of the clustering.
        fewest: patients whose cases an anchor is a mean of, at least.
        patients: of the cases, by place in the training list; None: every case is another patient's.
    """

    def __init__(self, per_class: int, ema: float, seed: int, fewest: int = 1, patients: Sequence[str] | None = None):
        self.per_class = per_class
        self.ema = ema
        self.seed = seed
        self.fewest = fewest
        self._patients = patients
        self._rows: dict[int, Tensor] = {}
        self._filled: Tensor | None = None
        self._renewed: Tensor | None = None
        self._centres: dict[int, Tensor] = {}
        self._clusters: dict[tuple[int, int], int] = {}

    def update(self, vectors: dict[int, CaseVectors], round_number: int) -> None:
        """Takes in the class vectors of one round of fusion training.

        Args:
            vectors: by the case's place in the training list.
            round_number: round 0 starts the anchors. The first later round that moves an anchor replaces it, since the
                network of round 0 was hardly trained: as a rule that is round 1. Later rounds move it slowly.
        """
        if not vectors:
            return
        first = next(iter(vectors.values()))
        if self._filled is None:
            classes = len(first.there)
            self._filled = torch.zeros(classes, self.per_class, dtype=torch.bool)
            self._renewed = torch.zeros_like(self._filled)
            self._rows = {
                level: torch.zeros(classes, self.per_class, rows.shape[1]) for level, rows in first.by_level.items()
            }
        for number in range(len(first.there)):
            holding = [case for case in sorted(vectors) if vectors[case].there[number]]
            if len(set(self._whose(holding))) >= self.fewest:
                self._assign(number, holding, vectors)
                self._move(number, holding, vectors, round_number)

    def _whose(self, cases: list[int]) -> list[str | int]:
        return [case if self._patients is None else self._patients[case] for case in cases]

    def _assign(self, number: int, holding: list[int], vectors: dict[int, CaseVectors]) -> None:
        deepest = max(self._rows)
        points = torch.stack([vectors[case].by_level[deepest][number] for case in holding])
        if number not in self._centres:
            seed = derive_seed(self.seed, "anchors", number)
            found = _k_means(points, self.per_class, seed)
            labels, self._centres[number] = _without_small(points, *found, self._whose(holding), self.fewest)
            self._clusters |= {(number, case): label for case, label in zip(holding, labels, strict=True)}
            return
        nearest = torch.cdist(points, self._centres[number]).argmin(dim=1).tolist()
        for case, cluster in zip(holding, nearest, strict=True):
            self._clusters.setdefault((number, case), cluster)

    def _move(self, number: int, holding: list[int], vectors: dict[int, CaseVectors], round_number: int) -> None:
        for cluster in range(self.per_class):
            members = [case for case in holding if self._clusters[number, case] == cluster]
            if len(set(self._whose(members))) < self.fewest:
                continue
            keep = self.ema if self._renewed[number, cluster] else 0.0
            for level, rows in self._rows.items():
                mean = torch.stack([vectors[case].by_level[level][number] for case in members]).mean(dim=0)
                rows[number, cluster] = keep * rows[number, cluster] + (1 - keep) * mean
            self._filled[number, cluster] = True
            self._renewed[number, cluster] = round_number > 0

    def tensors(self) -> dict[int, Tensor]:
        """The existing anchors by level, (rows, C_l); empty as long as there are none."""
        if self._filled is None or not self._filled.any():
            return {}
        return {level: rows[self._filled] for level, rows in self._rows.items()}

    def of_classes(self) -> list[int]:
        """How many anchors each class has; empty before round 0."""
        return [] if self._filled is None else self._filled.sum(dim=1).tolist()

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "rows": self._rows,
            "filled": self._filled,
            "renewed": self._renewed,
            "centres": self._centres,
            "clusters": self._clusters,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self._rows, self._filled, self._renewed = state["rows"], state["filled"], state["renewed"]
        self._centres, self._clusters = state["centres"], state["clusters"]


def _k_means(points: Tensor, clusters: int, seed: int) -> tuple[list[int], Tensor]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(torch.unique(points, dim=0))
    # One thread: the sums of several would be added in a different order each time.
    with threadpool_limits(1):
        found = KMeans(min(clusters, distinct), n_init=10, random_state=seed).fit(points.double().numpy())
    return found.labels_.tolist(), torch.from_numpy(found.cluster_centers_).to(points.dtype)


def _without_small(
    points: Tensor, labels: list[int], centres: Tensor, whose: list[str | int], fewest: int
) -> tuple[list[int], Tensor]:
    """Gives up the smallest cluster until all have enough patients; its cases join the nearest of the others."""
    kept = list(range(len(centres)))

    def size(cluster: int) -> int:
        return len({of for label, of in zip(labels, whose, strict=True) if label == cluster})

    while min(sizes := [size(cluster) for cluster in kept]) < fewest:
        lost = kept.pop(sizes.index(min(sizes)))
        nearest = torch.cdist(points, centres[kept]).argmin(dim=1).tolist()
        labels = [kept[nearest[place]] if label == lost else label for place, label in enumerate(labels)]
    places = {cluster: place for place, cluster in enumerate(kept)}
    return [places[label] for label in labels], centres[kept]
