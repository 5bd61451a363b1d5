"""Scores a network on a list of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedmepd.config import Settings
from fedmepd.data.batches import evaluation_cases
from fedmepd.data.cases import Case
from fedmepd.errors import Aborted
from fedmepd.evaluation.metrics import case_scores, dice_only, summarise
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.inference import predict


def score_cases(
    network: FedMEPDNet,
    cases: Sequence[Case],
    settings: Settings,
    cache: Path,
    *,
    distances: bool,
    abort: Callable[[], bool],
) -> dict[str, Any] | None:
    """Segments every case and averages the scores.

    Args:
        network: on its device.
        cases: labelled cases.
        settings: window, overlap and precision.
        cache: folder for prepared cases.
        distances: also compute HD95.
        abort: asked before every case.

    Returns:
        what :func:`fedmepd.evaluation.metrics.summarise` returns; None without cases.
    """
    scores = []
    for case in evaluation_cases(cases, settings, cache):
        if abort():
            raise Aborted
        prediction = predict(network, case.images, case.modalities, settings.evaluation, settings.training.precision)
        if distances:
            scores.append(case_scores(prediction, case.label, case.spacing))
        else:
            scores.append(dice_only(prediction, case.label))
    return summarise(scores)
