"""What a method is: what it does at the server, at a site and at the fusion site.

A file of this folder is one method. It opens with its paper, what travels, what stays at home and where it departs from
the paper; it holds the method's own settings and up to three classes, and ends with a :class:`Method` that names them.
What several methods do alike are bricks in :mod:`fedmepd.methods.parts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.methods.parts.fusion_training import CaseVectors
from fedmepd.methods.parts.selection import copy_into
from fedmepd.networks.network import FedMEPDNet

Tensors = dict[str, Tensor]
Shapes = dict[str, torch.Size]
Log = Callable[[str], None]


@dataclass
class Fused:
    """What the fusion site returns for a round.

    Attributes:
        weights: those that it was given, after its training.
        losses: means over its steps.
        cases: how many it trained on.
        extras: what else may leave it, by name: anchors.
    """

    weights: Tensors
    losses: dict[str, float]
    cases: int
    extras: Tensors = field(default_factory=dict)


class Fuse(Protocol):
    """Has the fusion site train a round; None where it is away, and the round has to do without."""

    def __call__(self, weights: Tensors, round_number: int) -> Fused | None: ...


class Store(Protocol):
    """Keeps tensors of a site between its update and the end of the round, so that memory does not grow with sites."""

    def save(self, site: str, tensors: Tensors) -> None: ...

    def load(self, site: str) -> Tensors: ...


class AtServer(ABC):
    """A method at the server. It owns every tensor that the method keeps there.

    Args:
        settings: of the job.
        weights: of the whole network as it starts, by name.
        store: for what a site returned, until the round is over.

    Attributes:
        weights: of the global model, by name. A tensor is never changed in place, so others may hold on to it.
        anchors: ``anchors.<level>``, where the method has them.
    """

    def __init__(self, settings: Settings, weights: Tensors, store: Store):
        self.settings = settings
        self.weights = weights
        self.store = store
        self.anchors: Tensors = {}

    @abstractmethod
    def join(self, site: str, modalities: Sequence[str]) -> None:
        """Lets a site take part from now on, or again with other modalities."""

    @abstractmethod
    def send(self, site: str) -> Tensors:
        """What a site gets for the next round."""

    @abstractmethod
    def expect(self, site: str) -> Shapes:
        """The changes that must come back from it: name and shape of each."""

    @abstractmethod
    def open(self, round_number: int) -> None:
        """Begins a round."""

    @abstractmethod
    def take(self, site: str, changes: Tensors, cases: int) -> None:
        """Takes in what a site has changed; sites come in any order, and the result has the same bits.

        Args:
            site: its name.
            changes: checked against :meth:`expect`; whole encoders may be missing.
            cases: that the site trained on.
        """

    def begin(self, fuse: Fuse) -> Fused | None:
        """Round 0, before the sites train for the first time."""
        fused = fuse(self.weights, 0)
        self.weights = fused.weights
        return fused

    @abstractmethod
    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        """The rest of the round once the sites are done: aggregation, fusion training and what follows.

        Returns:
            what the fusion site returned.
        """

    def layers(self) -> dict[str, int]:
        """Number of filters of every convolution of which some may become personal."""
        return {}

    def personal_filters(self, site: str) -> dict[str, int]:
        """How many filters of each of these convolutions are a site's own by now."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as tensors and plain values."""
        return {"weights": self.weights, "anchors": self.anchors}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.weights, self.anchors = state["weights"], state["anchors"]


class AtSite:
    """A method at a site.

    Args:
        settings: of the job.

    Attributes:
        trains: whether sites train at all.
        personalizes: whether filters of the decoder may become personal.
    """

    trains = True
    personalizes = False

    def __init__(self, settings: Settings):
        self.settings = settings

    def network(self, modalities: Iterable[str]) -> FedMEPDNet:
        """Builds the site's network, before its weights are started."""
        return build_network(self.settings, modalities)

    def take_in(self, network: FedMEPDNet, received: Tensors) -> None:
        """Puts what the server sent into the network.

        Raises:
            FedMEPDError: it does not fit.
        """
        copy_into(network, received)

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        """The present values of what the server is to get the change of, by name, on the CPU."""
        return {key: value.detach().cpu() for key, value in network.state_dict().items() if key in received}

    def personal_filters(self, received: Tensors) -> dict[str, int]:
        """How many filters of each convolution are the site's own, by what the server sent."""
        return {}


class AtFusionSite:
    """A method at the fusion site.

    Args:
        settings: of the job.
        log: takes lines about the progress.

    Attributes:
        collects_vectors: whether it needs the class vectors of every case.
        drops_modalities: whether each step trains on a random non-empty subset of the modalities.
    """

    collects_vectors = False
    drops_modalities = False

    def __init__(self, settings: Settings, log: Log):
        self.settings = settings
        self.log = log

    def leave(self, vectors: dict[int, CaseVectors], round_number: int) -> Tensors:
        """What may leave the fusion site after a round, besides weights."""
        return {}

    def state(self) -> dict[str, Any]:
        """What it keeps from round to round, as tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""


@dataclass(frozen=True)
class Method:
    """A method, as it is listed and found.

    Attributes:
        name: that of its file.
        title: as it is written.
        paper: author, venue, year.
        shared, personal: what sites share, and what stays at home.
        fusion: what the fusion site's data are used for.
        model: how a site's model came about, for its card.
        global_model: the same of the global model.
        settings: the job's settings with the method's own.
        at_server, at_site, at_fusion_site: what the participants do.
    """

    name: str
    title: str
    paper: str
    shared: str
    personal: str
    fusion: str
    model: str
    global_model: str
    at_server: Callable[[Settings, Tensors, Store], AtServer]
    at_site: Callable[[Settings], AtSite] = AtSite
    at_fusion_site: Callable[[Settings, Log], AtFusionSite] = AtFusionSite
    settings: type[Settings] = Settings


def build_network(settings: Settings, modalities: Iterable[str], *, calibration: dict | None = None) -> FedMEPDNet:
    """Builds a network by the job's settings.

    Args:
        settings: of the job.
        modalities: those that have an encoder in it.
        calibration: settings of LACCA, or None for a network without.
    """
    network = settings.network
    return FedMEPDNet(modalities, network.width, calibration=calibration, shared_encoder=network.shared_encoder)
