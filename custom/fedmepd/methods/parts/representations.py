"""Representations of a set of cases that all participants hold, as CreamFL compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmepd.config import Settings
from fedmepd.data.batches import Batch, evaluation_cases
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.errors import DataError
from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.networks.network import FedMEPDNet
from fedmepd.seeds import derive_seed
from fedmepd.text_table import counted
from fedmepd.training.arithmetic import autocast


class PublicCases:
    """The first of the fusion site's training cases, each as a crop about its centre.

    Args:
        settings: of the job; the crop's side and the batch are used.
        data: of the fusion site.
        count: number of cases.

    Raises:
        DataError: the fusion site has fewer.
    """

    def __init__(self, settings: Settings, data: SiteData, count: int):
        self._settings, self._cache = settings, data.cache
        self._cases: list[Case] = [case for case in data.train if case.modalities == data.task.modalities][:count]
        if len(self._cases) < count:
            message = f"contrast.items = {count}: the fusion site has {counted(len(self._cases), 'training case')}"
            raise DataError(f"{message}; choose that many or fewer", message)

    def batches(self, modalities: Sequence[str]) -> Iterator[Batch]:
        """Yields all cases in their order, with some of their modalities."""
        size = self._settings.training.batch
        for first in range(0, len(self._cases), size):
            cases = self._cases[first : first + size]
            crops = [self._crop(case, modalities) for case in evaluation_cases(cases, self._settings, self._cache)]
            images, labels = (torch.stack(part) for part in zip(*crops, strict=True))
            yield Batch(images, tuple(modalities), labels, tuple(range(first, first + len(cases))))

    def _crop(self, case: Any, modalities: Sequence[str]) -> tuple[Tensor, Tensor]:
        from monai.transforms import ResizeWithPadOrCrop

        crop = ResizeWithPadOrCrop((self._settings.training.crop,) * 3)
        images = case.images[0, [case.modalities.index(name) for name in modalities]]
        return crop(images).as_tensor(), crop(case.label[None])[0].as_tensor()

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self._cases) // self._settings.training.batch)


class Projections(nn.Module):
    """Maps the coarsest features of each modality's encoder, averaged over a case, to a vector of length 1.

    Args:
        settings: of the job.
        modalities: those that have an encoder here.
        dimension: D, length of the vectors.
    """

    def __init__(self, settings: Settings, modalities: Sequence[str], dimension: int):
        super().__init__()
        width = channels(settings.network.width, LEVELS[-1])
        self.of = nn.ModuleDict({name: nn.Linear(width, dimension) for name in modalities})
        for name, layer in self.of.items():
            # Everybody starts alike.
            random = torch.Generator().manual_seed(derive_seed(settings.seed, "start", "projection", name))
            nn.init.normal_(layer.weight, std=width**-0.5, generator=random)
            nn.init.zeros_(layer.bias)

    def forward(self, encoded: list[Tensor], modalities: Sequence[str]) -> Tensor:
        """Coarsest features of the M modalities, each (B, C, ...) -> (M, B, D)."""
        means = [feature.float().flatten(2).mean(dim=2) for feature in encoded]
        vectors = [self.of[name](mean) for name, mean in zip(modalities, means, strict=True)]
        return F.normalize(torch.stack(vectors), dim=2)


@torch.no_grad()
def represent(network: FedMEPDNet, projections: Projections, cases: PublicCases, precision: str) -> Tensor:
    """Returns the vectors of all cases in the network's modalities, (M, cases, D), on the CPU."""
    network.eval()
    device = next(network.parameters()).device
    vectors = []
    for batch in cases.batches(network.modalities):
        with autocast(device, precision):
            encoded = network.encode(batch.images.to(device), batch.modalities)[-1]
        vectors.append(projections(encoded, batch.modalities).cpu())
    return torch.cat(vectors, dim=1)


def of_others(vectors: Tensor) -> Tensor:
    """Returns for each modality the mean vector of all other modalities, of length 1; (M, cases, D) as given."""
    return F.normalize(vectors.sum(dim=0, keepdim=True) - vectors, dim=2)


def contrast(own: Tensor, before: Tensor, same: Tensor, others: Tensor, cases: Tensor, temperature: float) -> Tensor:
    """Returns CreamFL's contrast between modalities and within a modality, the mean over cases of one modality.

    Args:
        own: the participant's vectors of some cases, (B, D).
        before: the same before the round, (B, D).
        same: the fusion site's of these cases in this modality, (B, D).
        others: the fusion site's of all cases in the other modalities, (cases, D).
        cases: which of all cases they are, (B,).
        temperature: that divides every scalar product.
    """
    inter = F.cross_entropy(own @ others.T / temperature, cases)
    pairs = torch.stack([(own * same).sum(dim=1), (own * before).sum(dim=1)], dim=1) / temperature
    intra = F.cross_entropy(pairs, torch.zeros_like(cases))
    return inter + intra


def agreed(vectors: Sequence[Tensor], others: Tensor) -> Tensor:
    """Returns what several participants' vectors of one modality come to.

    A vector that says more clearly which case it is of, by the fusion site's vectors of the other modalities, has more
    weight.

    Args:
        vectors: of the participants, each (cases, D).
        others: the fusion site's of the other modalities, (cases, D).

    Returns:
        (cases, D).
    """
    stacked = torch.stack(list(vectors)).double()
    scores = (stacked @ others.double().T).log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    return (scores.softmax(dim=0)[..., None] * stacked).sum(dim=0).float()
