"""Methods whose last rounds have no exchange: every site goes on alone from the model that it then receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.data.site import SiteData
from fedmepd.errors import FedMEPDError
from fedmepd.methods.method import AtServer, AtSite, Fuse, Fused, Shapes, Tensors
from fedmepd.methods.parts.selection import of_modalities
from fedmepd.networks.network import FedMEPDNet


class TuningSettings(Section):
    """The last rounds, in which every site trains alone."""

    share: float = Field(0.1, gt=0, lt=1, description="share of the rounds in which the sites tune; at least one round")


class AloneAtLastSettings(Settings):
    """The settings of a job whose last rounds have no exchange."""

    tuning: TuningSettings = TuningSettings()

    def last_common(self) -> int:
        """Returns the last round with an exchange, 1 at least: at the end, one round at least is without."""
        return max(1, self.rounds - max(1, round(self.tuning.share * self.rounds)))

    def validation_is_due(self, round_number: int) -> bool:
        """Whether a round ends with a validation; the last one with an exchange always does."""
        return super().validation_is_due(round_number) or round_number == self.last_common()


class AloneAtLastAtServer(AtServer):
    """Put before a class that says what happens in the rounds with an exchange.

    In the rounds after them a site receives the whole model once, the first time that it takes part after it has
    joined, and returns nothing. The global model stays as it is.

    Attributes:
        last_common: the last round with an exchange.
    """

    def __init__(self, settings: AloneAtLastSettings, *more: Any):
        super().__init__(settings, *more)
        self.last_common = settings.last_common()
        self._alone = False
        self._owned: dict[str, Sequence[str]] = {}
        self._on_their_own: set[str] = set()

    def join(self, site: str, modalities: Sequence[str]) -> None:
        super().join(site, modalities)
        self._owned[site] = modalities
        # It may have lost its state, or own other modalities.
        self._on_their_own.discard(site)

    def send(self, site: str) -> Tensors:
        if not self._alone:
            return super().send(site)
        return {} if site in self._on_their_own else of_modalities(self.weights, self._owned[site])

    def expect(self, site: str) -> Shapes:
        return {} if self._alone else super().expect(site)

    def open(self, round_number: int) -> None:
        self._alone = round_number > self.last_common
        super().open(round_number)

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        if self._alone:
            self._on_their_own.add(site)
        else:
            super().take(site, changes, cases)

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        return None if self._alone else super().close(fuse, round_number)

    def state(self) -> dict[str, Any]:
        return super().state() | {"on_their_own": sorted(self._on_their_own)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._on_their_own = set(state["on_their_own"])


class AloneAtLastAtSite(AtSite):
    """A site that takes in the model of the last exchange once.

    Attributes:
        last_common: as of :class:`AloneAtLastAtServer`.
    """

    def __init__(self, settings: AloneAtLastSettings):
        super().__init__(settings)
        self.last_common = settings.last_common()
        self._on_its_own = False

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        super().start(network, data)
        self._modalities = list(network.modalities)

    def take_in(self, network: FedMEPDNet, received: Tensors, round_number: int) -> None:
        # The server sends the model again where it cannot know whether the site has it.
        if not self._on_its_own:
            alone = round_number > self.last_common
            if alone and not received:
                message = (
                    f"round {round_number}: the site has lost its state of this run, and so the model that it went on "
                    "from; restore its folder, or start the job again under the same run name"
                )
                raise FedMEPDError(message, public=message)
            super().take_in(network, received, round_number)
            self._on_its_own = alone

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        return {} if self._on_its_own else super().give(network, received)

    def state(self) -> dict[str, Any]:
        return super().state() | {"on_its_own": self._on_its_own, "modalities": self._modalities}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        # With other modalities than before it begins anew: the network lacks encoders that the model has.
        self._on_its_own = state["on_its_own"] and state["modalities"] == self._modalities
