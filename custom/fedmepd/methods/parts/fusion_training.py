"""Training at the fusion site, which has all modalities (algorithm section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.errors import DataError
from fedmepd.networks.build import build_network
from fedmepd.privacy.participant import Privacy
from fedmepd.seeds import Secret, derive_seed
from fedmepd.training.epoch import Progress, make_optimizer
from fedmepd.training.round import RoundTraining


class FusionTrainer:
    """Trains all encoders and the decoder on the fusion data, one call a round.

    It owns the optimizer and, where the method does not exchange it, the auxiliary decoder.

    Args:
        settings: of the job.
        data: the fusion site's data, with all modalities.
        cases: of the data, those to train on.
        device: to train on.
        secret: of the fusion site; see :data:`fedmepd.seeds.Secret`.
        privacy: differential privacy of the fusion site; None where there is none.

    Raises:
        DataError: there is no case to train on.
    """

    def __init__(
        self,
        settings: Settings,
        data: SiteData,
        cases: Sequence[Case],
        device: torch.device,
        secret: Secret = (),
        privacy: Privacy | None = None,
    ):
        self.settings = settings
        self.data = data
        self._secret, self._privacy = secret, privacy
        if not cases:
            missing = f"the fusion site has no training case with all of {', '.join(data.task.modalities)}"
            raise DataError(
                f"{missing}: add cases with all of them to its data folder",
                missing,
            )
        self.train_on(cases)
        self.network = build_network(settings).start(settings.seed).to(device)
        self.optimizer = make_optimizer(self.network, settings.training)

    def train_on(self, cases: Sequence[Case]) -> None:
        """Takes other cases to train on, from the next round."""
        self.cases = len(cases)
        self.batches = TrainingBatches(cases, self.settings, (self.data.name,), self.data.cache, secret=self._secret)

    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return len(self.batches) if self._privacy is None else self._privacy.steps_per_epoch

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name, on the CPU."""
        return {key: value.detach().cpu().contiguous().clone() for key, value in self.network.state_dict().items()}

    def train(
        self,
        state: dict[str, Tensor],
        round_number: int,
        direct: Callable[[RoundTraining], None],
        *,
        abort: Callable[[], bool],
        progress: Progress | None = None,
    ) -> RoundTraining:
        """Trains a round, starting from the given weights.

        Args:
            state: weights to start from; weights that it does not name keep their values.
            round_number: decides learning rate and crops.
            direct: says what is trained, such as ``fusion_epochs`` plain epochs.
            abort: asked before every step.
            progress: called after every step.

        Returns:
            the training, with its losses and figures; the weights are those of :meth:`state`.
        """
        self.network.load_state_dict(state, strict=False)
        torch.manual_seed(derive_seed(self.settings.seed, "fusion", round_number, *self._secret))
        training = RoundTraining(
            self.settings,
            "fusion",
            round_number,
            self.network,
            self.optimizer,
            self.batches,
            self.settings.training.fusion_epochs,
            abort,
            progress or (lambda step, loss: None),
            self._secret,
            self._privacy,
        )
        direct(training)
        return training
