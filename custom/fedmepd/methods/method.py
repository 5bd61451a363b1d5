"""What a method is: what it does at the server, at a site and at the fusion site.

Each file of this folder is one method. Its docstring names the paper, what is exchanged, what is kept at the site and
where the method differs from the paper. The file contains the method's own settings and up to three classes, and ends
with a :class:`Method` that names them. Code that several methods use is in :mod:`fedmepd.methods.parts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.errors import FedMEPDError
from fedmepd.methods.parts.figures import Bounds, no_figures, plain_losses
from fedmepd.methods.parts.selection import copy_into
from fedmepd.networks.build import build_network
from fedmepd.networks.network import FedMEPDNet
from fedmepd.privacy.participant import Privacy
from fedmepd.tasks.task import Task
from fedmepd.training.round import RoundTraining

Tensors = dict[str, Tensor]
Shapes = dict[str, torch.Size]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Spent:
    """What a round of training has cost.

    Attributes:
        steps: of training.
        seconds: of the whole work.
        peak_mib: the most memory that the process has held; None if it is not known.
    """

    steps: int = 0
    seconds: float = 0.0
    peak_mib: float | None = None


@dataclass
class Fused:
    """What the fusion site returns after a round.

    Attributes:
        weights: the weights that it received, after its training.
        losses: means over its steps.
        cases: number of cases that it trained on.
        extras: other tensors that may leave it, by name: anchors, or ``extra.<name>``.
        figures: the method's own figures of the round, by name.
        spent: what its training has cost.
        privacy: what it has spent of its privacy budget, see
            :meth:`fedmepd.privacy.participant.Privacy.spent`; None without differential privacy.
    """

    weights: Tensors
    losses: dict[str, float]
    cases: int
    extras: Tensors = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    spent: Spent = Spent()
    privacy: dict[str, Any] | None = None

    def trained(self, before: Tensors) -> list[str]:
        """Returns the names of the weights that came back: all but those of encoders that the fusion site withholds.

        Args:
            before: what it was sent. Of an encoder that it withholds, ``weights`` holds these very tensors.
        """
        return [key for key, value in self.weights.items() if value is not before[key]]

    def changes(self, before: Tensors) -> Tensors:
        """Returns what the training changed, of the weights that came back."""
        return {key: self.weights[key] - before[key] for key in self.trained(before)}


class Fuse(Protocol):
    """Has the fusion site train for a round, from the given weights.

    ``extras``, with names ``extra.<name>``, are other tensors that it needs for that. Returns None if it is absent and
    the round goes on without it.
    """

    def __call__(self, weights: Tensors, round_number: int, extras: Tensors | None = None) -> Fused | None: ...


class Store(Protocol):
    """Keeps tensors on disk, so that memory does not grow with the sites.

    A site's tensors stay from its update to the end of the round (``save``, ``load``). So do values of which only some
    are needed at a time (``begin_spool``, ``spool``, which says where they begin, ``spooled``). What belongs to the
    method's state stays as long as the method needs it, under a name and a round (``keep``, ``kept``,
    ``forget_others``).
    """

    def save(self, site: str, tensors: Tensors) -> None: ...

    def load(self, site: str) -> Tensors: ...

    def begin_spool(self) -> None: ...

    def spool(self, site: str, values: Tensor) -> int: ...

    def spooled(self, site: str, start: int, count: int) -> Tensor: ...

    def keep(self, name: str, round_number: int, tensors: Tensors) -> None: ...

    def kept(self, name: str, round_number: int) -> Tensors: ...

    def forget_others(self, needed: Collection[tuple[str, int]]) -> None: ...


class Sums(Protocol):
    """What every round's means of changes say of the sites, see :mod:`fedmepd.methods.parts.robust`."""

    cosines: dict[str, float]
    left_out: dict[str, float]


class AtServer(ABC):
    """The part of a method at the server. It owns every tensor that the method keeps there.

    Args:
        settings: of the job.
        weights: the initial weights of the whole network, by name.
        store: keeps what a site returned until the end of the round.

    Attributes:
        weights: the weights of the global model, by name. No tensor is changed in place.
        anchors: the class anchors as ``anchors.<level>``, if the method has any.
        begins_with_fusion: whether the fusion site trains in round 0, see :meth:`begin`.
        fuses_first: whether :meth:`close` has the fusion site train in every round before it uses what sites have sent.
            What is too large among that can be told by the fusion site's training then, also in the first round.
    """

    begins_with_fusion = True
    fuses_first = False

    def __init__(self, settings: Settings, weights: Tensors, store: Store):
        self.settings = settings
        self.weights = weights
        self.store = store
        self.anchors: Tensors = {}
        # The means of the round, of a method that averages.
        self._sums: Sums | None = None

    @abstractmethod
    def join(self, site: str, modalities: Sequence[str]) -> None:
        """Adds a site, or changes the modalities of a known one."""

    @abstractmethod
    def send(self, site: str) -> Tensors:
        """Returns what a site receives for the next round."""

    @abstractmethod
    def expect(self, site: str) -> Shapes:
        """Returns the name and shape of every change that the site must return."""

    @abstractmethod
    def open(self, round_number: int) -> None:
        """Begins a round."""

    @abstractmethod
    def take(self, site: str, changes: Tensors, cases: int) -> None:
        """Adds the changes of a site. The order of the sites does not change a bit of the result.

        Args:
            site: name of the site.
            changes: the changes, already checked against :meth:`expect`; whole encoders may be missing. Empty if the
                site returns none.
            cases: number of cases that the site trained on.
        """

    def expect_extras(self, owner: str) -> Shapes:
        """Returns name (``extra.<name>``) and shape of what else must come back from a site, or the fusion site.

        These are tensors that are no changes of weights. The server refuses values above
        :data:`~fedmepd.federation.checking.LARGEST_VALUE`, and scales a site's down to the median site's size where
        they exceed ``aggregation.norm_bound``, apart from its changes.
        """
        return {}

    def take_extras(self, site: str, extras: Tensors, cases: int) -> None:
        """Adds these tensors of a site, after its changes. The order of the sites does not change a bit of the result.

        The fusion site's are in :attr:`Fused.extras`.
        """
        return

    def begin(self, fuse: Fuse) -> Fused | None:
        """Runs round 0, before the sites train for the first time."""
        fused = fuse(self.weights, 0)
        self.weights = fused.weights
        return fused

    @abstractmethod
    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        """Runs the rest of a round after all sites have answered: aggregation, fusion training and what follows.

        Returns:
            what the fusion site returned; None if it was absent, or was not asked.
        """

    def figures(self) -> dict[str, dict[str, float]]:
        """Returns figures about the last round that only this method has, by participant and name.

        A participant without an update in the round has none. What participants find themselves is in
        :attr:`~fedmepd.training.round.RoundTraining.figures`.
        """
        return {} if self._sums is None else {site: {"direction": value} for site, value in self._sums.cosines.items()}

    def remarks(self) -> dict[str, str]:
        """Returns what the server's log should say of sites after a round, by site."""
        left_out = {} if self._sums is None else self._sums.left_out
        return {
            site: f"its update is left out, its cosine with the median update is {cosine:.3f} (aggregation.direction)"
            for site, cosine in left_out.items()
        }

    def layers(self) -> dict[str, int]:
        """Returns the number of filters of every convolution whose filters may become personal."""
        return {}

    def personal_filters(self, site: str) -> dict[str, int]:
        """Returns how many filters of each of these convolutions are personal to a site."""
        return {}

    def state(self) -> dict[str, Any]:
        """Returns everything that is needed to continue, as tensors and plain values."""
        return {"weights": self.weights, "anchors": self.anchors}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.weights, self.anchors = state["weights"], state["anchors"]


class AtSite:
    """The part of a method at a site. It owns everything that the method keeps there besides the site's network.

    Args:
        settings: of the job.

    Attributes:
        needs_cases: whether a site must have cases to train on.
        personalizes: whether filters of the decoder may become personal.
    """

    needs_cases = True
    personalizes = False

    def __init__(self, settings: Settings):
        self.settings = settings

    def network(self, modalities: Iterable[str]) -> FedMEPDNet:
        """Builds the site's network, before its weights are initialised."""
        return build_network(self.settings, modalities)

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        """Begins what the method keeps at the site, before the first round.

        Args:
            network: of the site, with its first weights, on its device.
            data: the site's cases.
        """

    def take_in(self, network: FedMEPDNet, received: Tensors, round_number: int) -> None:
        """Copies what the server sent into the network.

        Raises:
            FedMEPDError: the tensors do not fit the network.
        """
        copy_into(network, received)

    def train(self, training: RoundTraining, received: Tensors) -> None:
        """Trains for a round, after :meth:`take_in`. A round in which the site does not train does nothing here.

        Args:
            training: trains the site's network, or another, as it is told.
            received: what the server sent.
        """
        training.run()

    def scored(self, network: FedMEPDNet) -> FedMEPDNet:
        """Returns the network that is validated, kept as the site's model, and tested."""
        return network

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        """Returns the current values, on the CPU, of the weights whose change the server receives, by name."""
        return {key: value.detach().cpu() for key, value in network.state_dict().items() if key in received}

    def leave(self, round_number: int) -> Tensors:
        """Returns what else the server receives after a round, with names ``extra.<name>``.

        See :meth:`AtServer.expect_extras`.
        """
        return {}

    def personal_filters(self, received: Tensors) -> dict[str, int]:
        """Returns how many filters of each convolution are personal, according to what the server sent."""
        return {}

    def state(self) -> dict[str, Any]:
        """Returns what it keeps from round to round, as tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`, after :meth:`start`; the site's modalities may have changed since.

        Raises:
            CheckpointError: the state does not fit.
        """


class AtFusionSite:
    """The part of a method at the fusion site. It owns everything that the method keeps there besides the network.

    Args:
        settings: of the job.
        log: receives messages about the progress.

    Attributes:
        privacy: differential privacy of the fusion site, set before :meth:`start`; None where there is none.
        releases_vectors: whether it releases class vectors of its patients in every round, as anchors.
    """

    privacy: Privacy | None = None
    releases_vectors = False

    def __init__(self, settings: Settings, log: Log):
        self.settings = settings
        self.log = log

    def cases(self, data: SiteData) -> list[Case]:
        """Returns the cases that it trains on: those with all modalities."""
        return [case for case in data.train if case.modalities == data.task.modalities]

    def pool(self, site: str, open_site: Callable[[str], SiteData]) -> SiteData | None:
        """Returns the data of a site that has joined if the fusion site trains on its training cases too.

        Only a method that is no federation does; see :mod:`fedmepd.methods.central`.

        Args:
            site: its name.
            open_site: finds the site's data in the data folder of the fusion site's process.

        Raises:
            DataError: they are not there.
        """
        return None

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        """Begins what the method keeps at the fusion site, before round 0; see :meth:`AtSite.start`."""

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        """Trains for a round.

        Args:
            training: trains the network, which has the weights already.
            weights: that the round starts from, by name.
            extras: what else the server sent for the round.
        """
        training.run()

    def leave(self, round_number: int) -> Tensors:
        """Returns the tensors that may leave the fusion site after a round, besides the weights.

        Their names are ``anchors.<level>`` or ``extra.<name>``, see :meth:`AtServer.expect_extras`.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """Returns what it keeps from round to round, as tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""


@dataclass(frozen=True)
class Method:
    """The description of a method.

    Attributes:
        name: its name, which is also the name of its file.
        title: its name as it is printed.
        paper: author, venue, year.
        shared: what the sites share.
        personal: what is kept at each site.
        fusion: what the fusion site does with its data.
        model: how a site's model was trained, for its model card.
        global_model: how the global model was trained.
        settings: class of the job's settings, including the method's own.
        networks: how many networks a site keeps.
        averages: whether the server averages the sites' updates by :mod:`fedmepd.methods.parts.aggregation`.
        at_server: its part at the server.
        at_site: its part at a site.
        at_fusion_site: its part at the fusion site.
        losses, figures: what its participants tell of their training in a task, see
            :mod:`fedmepd.methods.parts.figures`; the server refuses all else.
        phantoms_only: why it must not be used with patients' images; empty where it may.
        private: whether it can be combined with differential privacy: all that leaves a participant besides what is
            withheld then follows from its training steps and its anchors.
    """

    name: str
    title: str
    paper: str
    shared: str
    personal: str
    fusion: str
    model: str
    global_model: str
    at_server: type[AtServer]
    at_site: Callable[[Settings], AtSite] = AtSite
    at_fusion_site: Callable[[Settings, Log], AtFusionSite] = AtFusionSite
    settings: type[Settings] = Settings
    networks: int = 1
    averages: bool = True
    losses: Callable[[Task], Bounds] = plain_losses
    figures: Callable[[Task], Bounds] = no_figures
    phantoms_only: str = ""
    private: bool = False

    def require_source(self, owner: str, source: str) -> None:
        """Refuses patients' images where the method must not be used with them.

        Args:
            owner: name of the site, or of the fusion site.
            source: of its cases: ``phantom`` or ``folder``.

        Raises:
            FedMEPDError: they are patients'.
        """
        if self.phantoms_only and source != "phantom":
            message = (
                f"{self.title} is for phantoms alone: {self.phantoms_only}; choose another method, or unset "
                "FEDMEPD_DATA everywhere and set data.phantom"
            )
            raise FedMEPDError(f"{owner}: {message}", public=message)
