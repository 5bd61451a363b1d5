"""Scores a network on a list of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.config import Settings
from fedmepd.data.batches import EvaluationCase, evaluation_cases
from fedmepd.data.cases import Case
from fedmepd.data.own_grid import own_classes
from fedmepd.errors import Aborted
from fedmepd.evaluation.metrics import CaseScores, case_scores, dice_only, summarise
from fedmepd.evaluation.pairs import read_classes
from fedmepd.networks.network import FedMEPDNet
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.tasks.labels import known_regions
from fedmepd.training.inference import predict

if TYPE_CHECKING:
    from torch import Tensor


def score_cases(
    network: FedMEPDNet,
    cases: Sequence[Case],
    settings: Settings,
    cache: Path,
    *,
    distances: bool,
    abort: Callable[[], bool],
    limits: Limits = HIGHEST,
    watch: Callable[[int, EvaluationCase, Tensor, CaseScores], None] = lambda place, case, prediction, scores: None,
) -> dict[str, Any] | None:
    """Segments every case and averages the scores.

    Of a case's images those are used for which the network has an encoder; a case without any is left out, and so is
    one whose label tells no region.

    Args:
        network: on its device.
        cases: labelled cases.
        settings: window, overlap and precision.
        cache: folder for prepared cases.
        distances: also compute HD95.
        abort: asked before every case and after every window.
        limits: of the machine.
        watch: called after each case with its place in the list, the case, its classes (X, Y, Z) and its scores.

    Returns:
        what :func:`fedmepd.evaluation.metrics.summarise` returns; None without cases.

    Raises:
        Aborted: ``abort`` said so.
        SettingsError: a case would be cut into more windows than the machine allows.
    """

    def asked(done: int = 0, total: int = 0) -> None:
        if abort():
            raise Aborted

    scores = []
    for place, case in enumerate(evaluation_cases(cases, settings, cache)):
        asked()
        used = [index for index, modality in enumerate(case.modalities) if modality in network.modalities]
        if not used or not known_regions(network.task.regions, case.groups):
            continue
        # All windows are laid out before the first, without a question to ``abort``.
        limits.check_windows(settings.evaluation, case.images.shape[2:])
        modalities = [case.modalities[index] for index in used]
        prediction = predict(
            network, case.images[:, used], modalities, settings.evaluation, settings.training.precision, asked
        )
        if distances and network.task.resampled:
            # On the label's own grid, as the segmentation is written.
            label, spacing = read_classes(cases[place])
            found = own_classes(cases[place], prediction.numpy().astype(np.uint8), case.corner, cases[place].label)
            scores.append(case_scores(network.task, found, label, spacing, case.groups))
        elif distances:
            scores.append(case_scores(network.task, prediction, case.label, case.spacing, case.groups))
        else:
            scores.append(dice_only(network.task, prediction, case.label, case.groups))
        watch(place, case, prediction, scores[-1])
    return summarise(scores, network.task.regions)
