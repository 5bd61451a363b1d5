"""Training at the fusion site, which has all modalities (algorithm section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.data.batches import Batch, TrainingBatches
from fedmepd.data.site import SiteData
from fedmepd.errors import DataError
from fedmepd.networks.build import build_network
from fedmepd.networks.network import Outputs
from fedmepd.seeds import derive_seed
from fedmepd.training.epoch import (
    EpochReport,
    Progress,
    class_vectors,
    learning_rate,
    make_optimizer,
    train_epoch,
)


@dataclass
class CaseVectors:
    """Class vectors of one fusion case in one round: by level (classes, C_l), and which classes its crop contained."""

    by_level: dict[int, Tensor]
    there: Tensor


@dataclass
class FusionResult:
    """What a round of fusion training returns.

    Attributes:
        state: the new weights, by name, on the CPU.
        losses: mean losses.
        steps: of training.
        vectors: class vectors by the case's index in the training list.
    """

    state: dict[str, Tensor]
    losses: dict[str, float]
    steps: int
    vectors: dict[int, CaseVectors] = field(default_factory=dict)


class FusionTrainer:
    """Trains all encoders and the decoder on the fusion data, one call a round.

    It owns the optimizer and, where the method does not exchange it, the auxiliary decoder.

    Args:
        settings: of the job.
        data: the fusion site's data, with all modalities.
        device: to train on.

    Raises:
        DataError: no training case has all modalities.
    """

    def __init__(self, settings: Settings, data: SiteData, device: torch.device):
        self.settings = settings
        self.task = data.task
        cases = [case for case in data.train if case.modalities == self.task.modalities]
        if not cases:
            missing = f"the fusion site has no training case with all of {', '.join(self.task.modalities)}"
            raise DataError(
                f"{missing}: add cases with all of them to its data folder",
                missing,
            )
        self.cases = len(cases)
        self.batches = TrainingBatches(cases, settings, (data.name,), data.cache)
        self.network = build_network(settings).start(settings.seed).to(device)
        self.device = device
        self.optimizer = make_optimizer(self.network, settings.training)

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name, on the CPU."""
        return {key: value.detach().cpu().contiguous().clone() for key, value in self.network.state_dict().items()}

    def train(
        self,
        state: dict[str, Tensor],
        round_number: int,
        *,
        vectors: bool,
        modality_dropout: bool,
        abort: Callable[[], bool],
        progress: Progress | None = None,
    ) -> FusionResult:
        """Trains ``fusion_epochs`` epochs, starting from the given weights.

        Args:
            state: weights to start from; weights that it does not name keep their values.
            round_number: decides learning rate and crops.
            vectors: also return the class vectors of every case.
            modality_dropout: train each step on a random non-empty subset of the modalities.
            abort: asked before every step.
            progress: called after every step.
        """
        self.network.load_state_dict(state, strict=False)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, round_number)
        torch.manual_seed(derive_seed(self.settings.seed, "fusion", round_number))
        random = np.random.default_rng(derive_seed(self.settings.seed, "fusion", "modalities", round_number))
        modalities = self.task.modalities
        subsets = [subset for count in range(1, len(modalities) + 1) for subset in combinations(modalities, count)]
        collected: dict[int, CaseVectors] = {}
        report = EpochReport()
        for epoch in range(self.settings.training.fusion_epochs):
            train_epoch(
                self.network,
                self.optimizer,
                self.batches.epoch(round_number * self.settings.training.fusion_epochs + epoch),
                report,
                precision=self.settings.training.training_precision(),
                abort=abort,
                progress=progress,
                choose_modalities=(lambda _: subsets[random.integers(len(subsets))]) if modality_dropout else None,
                observe=(lambda batch, outputs: self._collect(batch, outputs, collected)) if vectors else None,
            )
        return FusionResult(self.state(), report.means(), report.steps, collected)

    def _collect(self, batch: Batch, outputs: Outputs, collected: dict[int, CaseVectors]) -> None:
        label = batch.label.to(outputs.segmentation.device)
        by_level, there = class_vectors(outputs.features, label, len(self.task.classes))
        for place, case in enumerate(batch.cases):
            vectors = {level: rows[place].cpu() for level, rows in by_level.items()}
            collected[case] = CaseVectors(vectors, there[place].cpu())
