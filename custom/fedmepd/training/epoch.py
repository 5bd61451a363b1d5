"""One epoch of training, at a site or at the fusion site (algorithm sections 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmepd.config import Settings, TrainingSettings
from fedmepd.data.batches import Batch
from fedmepd.errors import Aborted, FedMEPDError
from fedmepd.networks.network import FedMEPDNet, Outputs
from fedmepd.tasks.labels import IGNORE
from fedmepd.training.losses import Loss, training_loss
from fedmepd.training.passes import Together, passes

# Called after each step with its number (from 1) and loss; None where nobody may see the loss of a step.
Progress = Callable[[int, float | None], None]
# Leaves out some of a batch's modalities.
ChooseModalities = Callable[[tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class Step:
    """One step of training after the forward pass: what a loss is computed from.

    Attributes:
        network: that is trained.
        batch: with all its images.
        images: (B, M, X, Y, Z) of the modalities that the step uses, on the network's device.
        modalities: these M.
        label: (B, X, Y, Z), classes, on the network's device.
        outputs: of the network.
        precision: of the forward pass, for further passes (:func:`~fedmepd.training.arithmetic.autocast`).
    """

    network: FedMEPDNet
    batch: Batch
    images: Tensor
    modalities: tuple[str, ...]
    label: Tensor
    outputs: Outputs
    precision: str


def plain_loss(step: Step) -> Loss:
    """The training loss of a step (algorithm section 2)."""
    return training_loss(step.outputs, step.label, step.batch.groups)


@dataclass
class EpochReport:
    """Means of the losses over the steps of one or more epochs."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, loss: Loss) -> float:
        """Adds one step's losses; returns the total."""
        parts = {
            "total": loss.total,
            "segmentation": sum(loss.segmentation),
            "regions": sum(sum(pair) for pair in loss.regions.values()),
            "auxiliary": sum(sum(pair) for pair in loss.auxiliary),
            **loss.extra,
        }
        self.steps += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        return float(parts["total"].detach())

    def means(self) -> dict[str, float]:
        """Mean of each part: total, segmentation, regions, auxiliary, and a method's own."""
        return {name: value / self.steps for name, value in self.sums.items()}


def make_optimizer(network: FedMEPDNet, settings: TrainingSettings) -> torch.optim.Adam:
    """The method's optimizer over all of a network's weights."""
    return torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def learning_rate(settings: Settings, round_number: int, rounds: int | None = None) -> float:
    """Polynomial decay over rounds 0 to the last one, in which it is above 0.

    Args:
        settings: of the job.
        round_number: the round.
        rounds: the last round of the decay; None: that of the job.
    """
    share = round_number / ((settings.rounds if rounds is None else rounds) + 1)
    return settings.training.learning_rate * (1 - share) ** settings.training.decay_power


def train_epoch(
    network: FedMEPDNet,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    report: EpochReport,
    *,
    precision: str,
    abort: Callable[[], bool],
    progress: Progress | None = None,
    choose_modalities: ChooseModalities | None = None,
    loss: Callable[[Step], Loss] = plain_loss,
    adjust: Callable[[], None] = lambda: None,
    observe: Callable[[Step], None] = lambda step: None,
) -> None:
    """Trains on every batch once.

    Args:
        network: in training mode afterwards; on the device to use.
        optimizer: of the network's parameters, learning rate set.
        batches: the epoch's batches.
        report: takes the losses.
        precision: of the forward pass.
        abort: asked before every step.
        progress: called after every step.
        choose_modalities: leaves out some of a batch's modalities.
        loss: of a step.
        adjust: called when the gradients are there, before the optimizer uses them.
        observe: called after every step.

    Raises:
        Aborted: ``abort`` returned true.
        FedMEPDError: the loss is not finite.
    """
    network.train()
    with passes(network, precision) as computed:
        for batch in batches:
            if abort():
                raise Aborted
            step = _step(network, batch, precision, choose_modalities, computed.forward)
            losses = loss(step)
            value = report.add(losses)
            if not torch.isfinite(losses.total):
                message = (
                    f"the loss is {value} in step {report.steps}: expected a finite number; lower "
                    "training.learning_rate or set training.precision to float32"
                )
                raise FedMEPDError(message, public=message)
            optimizer.zero_grad()
            computed.backward(losses.total)
            adjust()
            optimizer.step()
            observe(step)
            if progress is not None:
                progress(report.steps, value)


def forward(
    network: FedMEPDNet, batch: Batch, precision: str, choose_modalities: ChooseModalities | None = None
) -> Step:
    """Does the forward pass of a step on its own; arguments as of :func:`train_epoch`."""
    return _step(network, batch, precision, choose_modalities, Together(network, precision).forward)


def _step(
    network: FedMEPDNet,
    batch: Batch,
    precision: str,
    choose_modalities: ChooseModalities | None,
    outputs: Callable[[Tensor, tuple[str, ...]], Outputs],
) -> Step:
    device = next(network.parameters()).device
    images, modalities = batch.images, batch.modalities
    if choose_modalities is not None:
        chosen = choose_modalities(modalities)
        images, modalities = images[:, [modalities.index(name) for name in chosen]], chosen
    images = images.to(device)
    label = batch.label.to(device)
    return Step(network, batch, images, modalities, label, outputs(images, modalities), precision)


def class_vectors(features: dict[int, Tensor], label: Tensor, classes: int) -> tuple[dict[int, Tensor], Tensor]:
    """Mean of each level feature over the voxels of each class (algorithm section 3.6).

    The features, upsampled to the label's grid by nearest neighbour, are constant in blocks; so each feature is
    weighted by the class's share of its block, and nothing is upsampled.

    Args:
        features: by level, (B, C_l, X/2^(l-1), ...).
        label: class numbers, (B, X, Y, Z); voxels of :data:`~fedmepd.tasks.labels.IGNORE` are of no class.
        classes: number of classes.

    Returns:
        by level (B, classes, C_l), zero where the class is absent; which classes are present, bool (B, classes).
    """
    known = label != IGNORE
    one_hot = torch.nn.functional.one_hot(label.where(known, 0), classes).movedim(-1, 1).float()
    if not known.all():
        one_hot = one_hot * known[:, None]
    there = one_hot.flatten(2).any(dim=2)
    vectors = {}
    for level, feature in features.items():
        side = 2 ** (level - 1)
        share = torch.nn.functional.avg_pool3d(one_hot, side).flatten(2)
        total = share.sum(dim=2, keepdim=True)
        sums = torch.matmul(share, feature.detach().float().flatten(2).transpose(1, 2))
        vectors[level] = sums / total.clamp_min(1e-12)
    return vectors, there
