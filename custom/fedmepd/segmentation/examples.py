"""The best, the median and the worst of a site's cases as pictures. They never leave the site."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.data.batches import EvaluationCase, evaluation_cases
from fedmepd.data.cases import Case
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.segmentation.overlay import draw_overlay

KINDS = ("best", "worst", "median")


class Examples:
    """Remembers how each case was segmented until all are scored, then draws some.

    Args:
        cases: the list that is scored.
        settings: the job's, which may want no pictures: nothing is remembered then.
        cache: folder for prepared cases.
        modalities: those to draw, of those that a case has.
    """

    def __init__(self, cases: Sequence[Case], settings: Settings, cache: Path, modalities: Sequence[str]):
        self._cases = cases
        self._settings = settings
        self._cache = cache
        self._modalities = modalities
        # mDSC, index in the list, classes (compressed, because all cases of a site would take gigabytes).
        self._kept: list[tuple[float, int, bytes]] = []

    def watch(self, place: int, case: EvaluationCase, prediction: Tensor, scores: CaseScores) -> None:
        """Remembers a case, see :func:`fedmepd.federation.evaluate.score_cases`."""
        if not self._settings.evaluation.pictures:
            return
        classes = prediction.cpu().numpy().astype(np.uint8)
        self._kept.append((fmean(scores.dice.values()), place, zlib.compress(classes.tobytes(), level=1)))

    def draw(self, folder: Path, kinds: Sequence[str] = KINDS) -> dict[str, float]:
        """Draws the segmentation and the label of some cases, each as ``<kind>.png``; a case only once.

        Args:
            folder: to write to.
            kinds: of :data:`KINDS`.

        Returns:
            mDSC of each case drawn, by kind.

        Raises:
            FedMEPDError: a picture cannot be written.
        """
        ranked = sorted(self._kept)
        places = {"best": len(ranked) - 1, "worst": 0, "median": (len(ranked) - 1) // 2}
        chosen: dict[int, str] = {}
        for kind in kinds if ranked else ():
            chosen.setdefault(places[kind], kind)
        drawn = {}
        for rank, kind in chosen.items():
            mdsc, place, content = ranked[rank]
            [case] = evaluation_cases([self._cases[place]], self._settings, self._cache)
            used = [index for index, name in enumerate(case.modalities) if name in self._modalities]
            label = case.label.numpy()
            draw_overlay(
                self._cases[place].task,
                folder / f"{kind}.png",
                [case.modalities[index] for index in used],
                case.images[0, used].numpy(),
                np.frombuffer(zlib.decompress(content), np.uint8).reshape(label.shape),
                case.spacing,
                label,
            )
            drawn[kind] = mdsc
        return drawn
