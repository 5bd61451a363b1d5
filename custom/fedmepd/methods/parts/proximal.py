"""A proximal term: training is held near given weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.networks.network import FedMEPDNet


class ProximalTerm:
    """Adds (strength/2) |w - w_given|^2 to the loss, by its gradient: strength (w - w_given).

    A weight that a step does not use has no gradient, and stays as it is.

    Args:
        network: that is trained, on its device.
        given: weights by name; those that the network has not are left out.
        strength: mu of FedProx, lambda of Ditto.
    """

    def __init__(self, network: FedMEPDNet, given: dict[str, Tensor], strength: float):
        self.strength = strength
        self._pairs = [
            (parameter, given[name].detach().to(parameter.device, parameter.dtype, copy=True))
            for name, parameter in network.named_parameters()
            if name in given
        ]

    @torch.no_grad()
    def adjust(self) -> None:
        """Adds its gradient, to be called before the optimizer's step."""
        for parameter, reference in self._pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - reference, alpha=self.strength)

    @torch.no_grad()
    def value(self) -> float:
        """The term as the weights are."""
        distance = sum(float((parameter - reference).double().square().sum()) for parameter, reference in self._pairs)
        return self.strength / 2 * distance
