"""IOP-FL, its personalization inside the federation: a moving average of a site's own weights beside FedAvg.

Jiang et al., TMI 2023. After each local epoch a site updates its personal model,
p <- alpha p + (1 - alpha) w, where w are its weights after training from the global model; the first round sets p = w.
It validates and tests p, and sends the change of w.

Exchanged: the encoders of a site's modalities, the decoder, the auxiliary decoder.
Kept at the site: the personal model, and nothing of it travels.

Departures from the paper. It has a second part, which routes cases of unseen sites at test time; every site here is in
the federation, so it is left out. An encoder is averaged over the sites that have its modality, as in ``fedavg``. The
fusion site trains like a site, and its model is the global one. alpha = 0.1 is the released configuration's; with it p
is nine tenths of what ``fedavg`` validates at a site. Where ``local_epochs`` is above 1, p moves once a round.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.data.site import SiteData
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import AtSite, Method, Tensors
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.round import RoundTraining


class PersonalAverageSettings(Section):
    """The personal model of a site."""

    alpha: float = Field(
        0.1, ge=0, lt=1, description="share of the old personal model kept in each round; tune in 0.1, 0.5, 0.9"
    )


class IOPFLSettings(Settings):
    """The settings of an IOP-FL job."""

    personal: PersonalAverageSettings = PersonalAverageSettings()


class IOPFLAtSite(AtSite):
    """Averages its own weights over the rounds, and validates and tests the average."""

    settings: IOPFLSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        self._personal = copy.deepcopy(network)
        self._has_begun = False

    def train(self, training: RoundTraining, received: Tensors) -> None:
        training.run()
        self._average(training.network)

    @torch.no_grad()
    def _average(self, network: FedMEPDNet) -> None:
        alpha = self.settings.personal.alpha if self._has_begun else 0.0
        own = self._personal.state_dict()
        for key, value in network.state_dict().items():
            own[key].mul_(alpha).add_(value, alpha=1 - alpha)
        self._has_begun = True

    def scored(self, network: FedMEPDNet) -> FedMEPDNet:
        return self._personal

    def state(self) -> dict[str, Any]:
        return {
            "has_begun": self._has_begun,
            "personal": {key: value.detach().cpu() for key, value in self._personal.state_dict().items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        # With other modalities than before, the average begins anew: it has no past of the new encoders.
        self._has_begun = state["has_begun"] and state["personal"].keys() == self._personal.state_dict().keys()
        if self._has_begun:
            self._personal.load_state_dict(state["personal"])


METHOD = Method(
    name="iopfl",
    title="IOP-FL",
    paper="Jiang et al., TMI 2023",
    shared="the whole network",
    personal="a moving average of the site's own weights, which it uses",
    fusion="trains in every round like a site",
    model="a moving average over the rounds of the network averaged with other sites' and trained here",
    global_model="the whole network averaged over the sites and the fusion site in every round",
    at_server=FedAvgAtServer,
    at_site=IOPFLAtSite,
    settings=IOPFLSettings,
    networks=2,
    private=True,
)
