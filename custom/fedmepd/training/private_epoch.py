"""An epoch with differential privacy: a clipped gradient of every patient, noise in their sum (Abadi, CCS 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fedmepd.data.batches import Batch
from fedmepd.errors import Aborted
from fedmepd.networks.network import FedMEPDNet
from fedmepd.privacy.clipped_sum import ClippedSum
from fedmepd.privacy.participant import Privacy
from fedmepd.training.epoch import ChooseModalities, EpochReport, Progress, Step, forward, plain_loss
from fedmepd.training.losses import Loss


def train_privately(
    privacy: Privacy,
    network: FedMEPDNet,
    optimizer: torch.optim.Optimizer,
    lots: Iterable[Iterable[Batch]],
    report: EpochReport,
    *,
    crop: int,
    precision: str,
    abort: Callable[[], bool],
    progress: Progress | None = None,
    choose_modalities: ChooseModalities | None = None,
    loss: Callable[[Step], Loss] = plain_loss,
    adjust: Callable[[], None] = lambda: None,
    observe: Callable[[Step], None] = lambda step: None,
) -> None:
    """Takes one step for every lot of patients, also for an empty one.

    Every patient's crop goes through the network alone, so no term of the loss and no normalisation mixes patients.

    Args:
        privacy: of the participant; the round is charged already.
        lots: for every step, the crops of the patients drawn for it, one a batch.
        report: takes the losses of all crops. They must not leave the participant.
        crop: side of the crops in voxels.
        progress: called after every step, without the loss: admins see it.

    The others are those of :func:`~fedmepd.training.epoch.train_epoch`.

    Raises:
        Aborted: ``abort`` returned true.
    """
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    used = _used(network, parameters, crop, precision, loss)
    for number, lot in enumerate(lots, start=1):
        if abort():
            raise Aborted
        total = ClippedSum(parameters, privacy.clip)
        for batch in lot:
            step = forward(network, batch, precision, choose_modalities)
            losses = loss(step)
            gradients = torch.autograd.grad(losses.total, parameters, allow_unused=True)
            if total.add(gradients):
                report.add(losses)
            observe(step)
        released = total.released(privacy.noise, privacy.random)
        for parameter, value, mask in zip(parameters, released, used, strict=True):
            parameter.grad = (value / privacy.expected).to(parameter.dtype) * mask
        adjust()
        optimizer.step()
        if progress is not None:
            progress(number, None)


def _used(
    network: FedMEPDNet,
    parameters: Sequence[Tensor],
    crop: int,
    precision: str,
    loss: Callable[[Step], Loss],
) -> list[Tensor]:
    """Returns for every parameter 1 where its values have a gradient with the network's modalities, else 0.

    Of the decoder, the weights for modalities that the participant does not own have none, whatever its cases are.
    Noise there would go to everybody's decoder and hide nothing. An image of noise finds them: no case is looked at.
    """
    side = (crop,) * 3
    images = torch.randn(1, len(network.modalities), *side)
    label = torch.randint(len(network.task.classes), (1, *side))
    step = forward(network, Batch(images, network.modalities, label, ()), precision, None)
    gradients = torch.autograd.grad(loss(step).total, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return [
        torch.zeros_like(parameter) if gradient is None else (gradient != 0).to(parameter.dtype)
        for parameter, gradient in pairs
    ]
