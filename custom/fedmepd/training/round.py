"""A round of training at a participant, as its method directs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

from fedmepd.config import Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.networks.network import FedMEPDNet
from fedmepd.privacy.participant import Privacy
from fedmepd.seeds import Secret, derive_seed
from fedmepd.training.epoch import ChooseModalities, EpochReport, Progress, learning_rate, train_epoch
from fedmepd.training.private_epoch import train_privately


class RoundTraining:
    """A round of training of one participant. Its method decides what is trained, in which order and with which loss.

    A method that trains as usual calls :meth:`run`. One that trains parts of an epoch differently goes through
    :meth:`epochs` and calls :meth:`steps`.

    Args:
        settings: of the job.
        name: of the participant; with the round's number it decides every random number.
        round: the round's number.
        network: of the participant, on its device.
        optimizer: of the network.
        batches: of the participant's training cases.
        epochs: epochs of a plain round.
        abort: asked before every step.
        progress: called after every step, with its number in the round.
        secret: of the participant; see :data:`fedmepd.seeds.Secret`.
        privacy: trains with differential privacy; losses and figures must not leave the participant then.

    Attributes:
        rate: the learning rate that :meth:`steps` sets; a method may change it.
        planned: number of steps of the round, for progress lines; a method that takes more or fewer says so.
        taken: number of steps taken so far, of every network.
        report: mean losses, see :meth:`steps`.
        figures: a method's own figures of the round by name; they leave the participant with the losses.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        round: int,
        network: FedMEPDNet,
        optimizer: torch.optim.Optimizer,
        batches: TrainingBatches,
        epochs: int,
        abort: Callable[[], bool],
        progress: Progress = lambda step, loss: None,
        secret: Secret = (),
        privacy: Privacy | None = None,
    ):
        self.settings = settings
        self.name = name
        self.round = round
        self.network = network
        self.optimizer = optimizer
        self.privacy = privacy
        self.rate = learning_rate(settings, round)
        self.taken = 0
        self.report = EpochReport()
        self.figures: dict[str, float] = {}
        self._batches, self._epochs = batches, epochs
        self._abort, self._progress, self._secret = abort, progress, secret
        self.planned = epochs * self.steps_per_epoch()
        self._charged = False

    def run(self, **options) -> None:
        """Trains the plain number of epochs; ``options`` are those of :meth:`steps`."""
        for batches in self.epochs():
            self.steps(batches, **options)

    def epochs(self) -> Iterator[Iterator[Any]]:
        """The batches of each of the round's epochs. Every call begins with the same crops in the same order.

        With differential privacy they are lots of patients, drawn anew each time; :meth:`steps` takes either.
        """
        for epoch in range(self._epochs):
            number = self.round * self._epochs + epoch
            if self.privacy is None:
                yield self._batches.epoch(number)
            else:
                yield self._batches.lots(number, self.privacy.lots(self._batches.examinations()))

    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return len(self._batches) if self.privacy is None else self.privacy.steps_per_epoch

    def steps(
        self,
        batches: Iterable[Any],
        *,
        network: FedMEPDNet | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        frozen: tuple[str, ...] = (),
        report: EpochReport | None = None,
        **options,
    ) -> None:
        """Trains on some batches.

        Args:
            batches: of one of the :meth:`epochs`, or others.
            network: to train; None: the participant's.
            optimizer: of the network.
            frozen: parts of the network that do not change, such as
                :data:`~fedmepd.methods.parts.selection.ENCODERS`; their averages in the optimizer do not either.
            report: takes the losses; None: the round's. A second network's losses belong into one of its own.
            options: ``choose_modalities``, ``loss``, ``adjust`` and ``observe`` of
                :func:`~fedmepd.training.epoch.train_epoch`.

        Raises:
            Aborted: ``abort`` returned true.
            FedMEPDError: the loss is not finite.
            BudgetSpent: there is no privacy left for the round.
        """
        network = self.network if network is None else network
        optimizer = self.optimizer if optimizer is None else optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        train = train_epoch
        if self.privacy is not None:
            self._charge(self.privacy)
            train = partial(train_privately, self.privacy, crop=self.settings.training.crop)
        with _frozen(network, frozen):
            train(
                network,
                optimizer,
                batches,
                self.report if report is None else report,
                precision=self.settings.training.training_precision(),
                abort=self._abort,
                progress=self._count,
                **options,
            )

    def _charge(self, privacy: Privacy) -> None:
        if not self._charged:
            privacy.charge(self.round, self.planned)
            self._charged = True

    def _count(self, _: int, loss: float | None) -> None:
        self.taken += 1
        if self.privacy is not None and self.taken > self.planned:
            raise RuntimeError(f"{self.name}: more steps than the {self.planned} that privacy was charged for")
        self._progress(self.taken, loss)

    def modality_dropout(self) -> ChooseModalities:
        """Returns a choice of a random non-empty subset of a batch's modalities, all subsets alike, for ``steps``."""
        parts = (self.name, "modalities", self.round, *self._secret)
        random = np.random.default_rng(derive_seed(self.settings.seed, *parts))

        def choose(modalities: tuple[str, ...]) -> tuple[str, ...]:
            subsets = [subset for count in range(1, len(modalities) + 1) for subset in combinations(modalities, count)]
            return subsets[random.integers(len(subsets))]

        return choose


@contextmanager
def _frozen(network: FedMEPDNet, prefixes: tuple[str, ...]) -> Iterator[None]:
    """Parts of a network get no gradients; an optimizer leaves parameters without gradients alone."""
    parameters = [value for name, value in network.named_parameters() if prefixes and name.startswith(prefixes)]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
