"""A sum over patients in which none counts more than a given norm, released with noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmepd.privacy.randomness import SecretRandom


class ClippedSum:
    """Adds one list of tensors for every patient, scaled down where their norm is above the clipping norm.

    So with and without a patient the sum differs by at most that norm, whatever the patient's images are.

    Args:
        like: tensors of the shapes and on the device of the sum.
        clip: the largest Euclidean norm of a patient's tensors, all taken together.
    """

    def __init__(self, like: Sequence[Tensor], clip: float):
        self.clip = clip
        self.sums = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in like]

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor | None]) -> bool:
        """Adds a patient's tensors; None stands for zeros.

        Returns:
            whether they are finite. If not, the patient adds nothing: an error would tell others of the patient.
        """
        squares = [tensor.double().square().sum() for tensor in tensors if tensor is not None]
        norm = math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0
        if not math.isfinite(norm):
            return False
        factor = 1.0 if norm <= self.clip else self.clip / norm
        for total, tensor in zip(self.sums, tensors, strict=True):
            if tensor is not None:
                total.add_(tensor, alpha=factor)
        return True

    @torch.no_grad()
    def released(self, noise: float, random: SecretRandom) -> list[Tensor]:
        """Returns the sum with noise in every value.

        Args:
            noise: its standard deviation in clipping norms.
            random: draws it.
        """
        drawn = random.normal(sum(total.numel() for total in self.sums)) * (noise * self.clip)
        parts = torch.from_numpy(drawn).split([total.numel() for total in self.sums])
        return [total + part.view(total.shape).to(total.device) for total, part in zip(self.sums, parts, strict=True)]
