"""The passes of a training step through the network: the whole batch at once, or its samples side by side.

A processor with few small maps to compute gains little from a second thread within an operation. Two samples, each on a
thread of its own from the first operation to the last, keep both busy. The loss is that of the whole batch: its
gradients with respect to the outputs are computed once and go back through the samples' passes; the samples' gradients
are added in the order of the batch, so the result does not depend on which thread was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from fedmepd.networks.network import FedMEPDNet, Outputs
from fedmepd.training.arithmetic import autocast

# Calls a function with each of the numbers, all at once or one after another; results in the numbers' order.
Map = Callable[[Callable[[int], object], Sequence[int]], Iterator]


class Passes(Protocol):
    """Forward and backward passes of a network, a step after another."""

    def forward(self, images: Tensor, modalities: tuple[str, ...]) -> Outputs:
        """images (B, M, X, Y, Z) -> what the loss is computed from."""

    def backward(self, total: Tensor) -> None:
        """Adds the gradients of the loss of the newest outputs to those of the network's parameters."""


@contextmanager
def passes(network: FedMEPDNet, precision: str) -> Iterator[Passes]:
    """Chooses how a network's training steps are computed: side by side where that is faster.

    Args:
        network: in training mode, on its device.
        precision: of the forward pass.
    """
    threads = torch.get_num_threads()
    # Calibration draws random numbers, whose order would depend on the threads; GPUs compute a batch at once.
    if threads < 2 or network.calibration is not None or next(network.parameters()).device.type != "cpu":
        yield Together(network, precision)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield SideBySide(network, precision, threads, pool.map)
        finally:
            # For some libraries, what one thread sets holds for all.
            torch.set_num_threads(threads)


class Together:
    """The whole batch at once.

    Args:
        network: to train.
        precision: of the forward pass.
    """

    def __init__(self, network: FedMEPDNet, precision: str):
        self._network, self._precision = network, precision

    def forward(self, images: Tensor, modalities: tuple[str, ...]) -> Outputs:
        """See :meth:`Passes.forward`."""
        with autocast(images.device, self._precision):
            return self._network.training_outputs(images, modalities)

    def backward(self, total: Tensor) -> None:
        """See :meth:`Passes.backward`."""
        total.backward()


class SideBySide:
    """Every sample of a batch in a thread of its own.

    Args:
        network: to train; its forward pass draws no random numbers.
        precision: of the forward pass.
        threads: of the processor to use; each sample gets its share of them.
        run: calls a function for the samples, each in a thread; with :func:`map` one after another, with the same
            gradients bit by bit.
    """

    def __init__(self, network: FedMEPDNet, precision: str, threads: int, run: Map = map):
        self._network, self._threads, self._run = network, threads, run
        self._share = threads
        self._together = Together(network, precision)
        self._samples: list[list[Tensor]] = []
        self._joined: list[Tensor] = []

    def forward(self, images: Tensor, modalities: tuple[str, ...]) -> Outputs:
        """See :meth:`Passes.forward`."""
        count = len(images)
        self._samples, self._joined = [], []
        self._share = max(1, self._threads // count)
        if count == 1:
            torch.set_num_threads(self._share)
            return self._together.forward(images, modalities)

        def of_sample(number: int) -> Outputs:
            torch.set_num_threads(self._share)
            return self._together.forward(images[number : number + 1], modalities)

        each = list(self._run(of_sample, range(count)))
        # The loss and the optimizer's step are too little work for several threads, which would wait for one another.
        torch.set_num_threads(self._share)
        self._samples = [of_one.tensors() for of_one in each]
        # The loss's gradients stop here; backward() takes them on.
        self._joined = [torch.cat(of_all).detach().requires_grad_() for of_all in zip(*self._samples, strict=True)]
        return each[0].with_tensors(self._joined)

    def backward(self, total: Tensor) -> None:
        """See :meth:`Passes.backward`."""
        total.backward()
        used = [place for place, joined in enumerate(self._joined) if joined.grad is not None]
        parameters = [parameter for parameter in self._network.parameters() if parameter.requires_grad]

        def of_sample(number: int) -> tuple[Tensor | None, ...]:
            torch.set_num_threads(self._share)
            outputs = [self._samples[number][place] for place in used]
            gradients = [self._joined[place].grad[number : number + 1] for place in used]
            return torch.autograd.grad(outputs, parameters, gradients, allow_unused=True)

        for of_parameters in self._run(of_sample, range(len(self._samples))):
            for parameter, gradient in zip(parameters, of_parameters, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        self._samples, self._joined = [], []
