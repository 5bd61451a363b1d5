"""Ways of doing the same training step on a device: memory formats, plain operations, compiled, as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.task import Product, Task
from fedmepd.data.batches import Batch
from fedmepd.networks.kernels.portable import plain_operations
from fedmepd.training.arithmetic import autocast
from fedmepd.training.losses import training_loss
from tests.networks import oracle

# Steps before a CUDA graph is recorded, in which libraries choose their algorithms and Adam makes its state.
_BEFORE_RECORDING = 3


class Trainer(Protocol):
    """A site's training."""

    def step(self, batch: Batch) -> float:
        """Trains one step; returns its loss."""


@dataclass(frozen=True)
class Way:
    """One way of doing a training step.

    Attributes:
        name: as tables show it.
        product: the product; else the straightforward formulation.
        channels_last: of the straightforward formulation; the product's kernels always use this memory format.
        plain: the product without its own kernels, in PyTorch's ordinary memory format.
        compiled: the network by torch.compile.
        recorded: the whole step as a CUDA graph.
        search: cuDNN tries its algorithms and takes the fastest.
        dropout: whether the product's attention has its dropout; the straightforward formulation has none.
    """

    name: str
    product: bool = True
    channels_last: bool = False
    plain: bool = False
    compiled: bool = False
    recorded: bool = False
    search: bool = False
    dropout: bool = True

    @contextlib.contextmanager
    def surroundings(self):
        """What has to be at work around every step."""
        with contextlib.ExitStack() as stack:
            if self.plain:
                stack.enter_context(plain_operations())
            if self.search:
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True))
            yield

    def trainer(self, task: Task) -> Trainer:
        """Returns the training of a site in this way."""
        if not self.product:
            return task.straightforward(self.forward(task, oracle.forward))
        product = (task if self.dropout else replace(task, dropout=0.0)).product()
        if self.plain:
            product.network.to(memory_format=torch.contiguous_format)
        if self.compiled:
            product.network.training_outputs = torch.compile(product.network.training_outputs, dynamic=False)
        return Recorded(product) if self.recorded else product

    def forward(self, task: Task, network: Callable[..., oracle.Outputs]) -> Callable[..., oracle.Outputs]:
        """Returns the straightforward formulation's ``network`` in this way."""
        if self.compiled:
            network = torch.compile(network, dynamic=False)

        def forward(weights: dict[str, Tensor], images: Tensor, *rest) -> oracle.Outputs:
            if self.channels_last:
                weights = {name: _channels_last(weight) for name, weight in weights.items()}
                images = _channels_last(images)
            # PyTorch's autocast is how anybody would use bfloat16 with it.
            with autocast(torch.device(task.device), task.precision):
                return network(weights, images, *rest)

        return forward


STRAIGHTFORWARD = Way("straightforward", product=False)
PRODUCT = Way("product")
# By importance: what costs little time to measure comes first.
WAYS = (
    STRAIGHTFORWARD,
    PRODUCT,
    Way("product with a search by cuDNN", search=True),
    Way("product of plain operations", plain=True, dropout=False),
    Way("product as a CUDA graph", recorded=True, dropout=False),
    Way("straightforward in channels-last", product=False, channels_last=True),
    Way("product with torch.compile", compiled=True),
    Way("product of plain operations with torch.compile", plain=True, compiled=True, dropout=False),
    Way("straightforward with torch.compile", product=False, compiled=True),
)


class Recorded:
    """A product's step, recorded as one CUDA graph and replayed with each batch. The shape may not change.

    Args:
        product: to train.
    """

    def __init__(self, product: Product):
        self._product = product
        self._graph: torch.cuda.CUDAGraph | None = None

    def step(self, batch: Batch) -> float:
        """Trains one step; returns its loss. The first call trains several, records, and returns the first loss."""
        if self._graph is None:
            return self._record(batch)
        self._images.copy_(batch.images)
        self._label.copy_(batch.label)
        self._graph.replay()
        return self._loss.item()

    def _record(self, batch: Batch) -> float:
        if not torch.cuda.is_available():
            raise RuntimeError("CUDA graphs need a GPU")
        network = self._product.network.train()
        device = next(network.parameters()).device
        self._images, self._label = batch.images.to(device), batch.label.to(device)
        network.anchors = {level: rows.to(device) for level, rows in network.anchors.items()}
        for group in self._product.optimizer.param_groups:
            group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        losses = []
        with torch.cuda.stream(stream):
            for _ in range(_BEFORE_RECORDING):
                self._product.optimizer.zero_grad()
                losses.append(self._train(batch.modalities).item())
        torch.cuda.current_stream().wait_stream(stream)
        self._product.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._loss = self._train(batch.modalities)
        self._graph = graph
        return losses[0]

    def _train(self, modalities: tuple[str, ...]) -> Tensor:
        with autocast(self._images.device, self._product.precision):
            outputs = self._product.network.training_outputs(self._images, modalities)
        loss = training_loss(outputs, self._label).total
        loss.backward()
        self._product.optimizer.step()
        return loss.detach()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d) if x.ndim == 5 else x
