"""Ditto: every site trains the federation's network and, beside it, a personal one that is held near it.

Li et al., ICML 2021. The network w is FedAvg's. The personal network v is never sent. Both train on the same crops; v's
gradient is that of its loss plus lambda (v - w_r), w_r being the weights that the site received.

Exchanged: the encoders of a site's modalities, the decoder, the auxiliary decoder, of w.
Kept at the site: v and its optimizer. The site validates and tests v.

A site takes twice the steps of ``fedavg`` and holds two networks; its reported steps count both.

Departures from the paper. The optimizer is Adam, with averages of its own for v. An encoder is averaged over the sites
that have its modality, as in ``fedavg``. The fusion site trains w like a site and has no v: the global model is w. The
paper tunes lambda for every device; we use one for all, 0.1 (Manthe et al., MedIA 2024, on FeTS). The loss of v is the
figure ``personal_loss``.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.data.site import SiteData
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import AtSite, Method, Tensors
from fedmepd.methods.parts.figures import Bounds, plain_losses
from fedmepd.methods.parts.proximal import ProximalTerm
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.task import Task
from fedmepd.training.epoch import EpochReport, make_optimizer
from fedmepd.training.kept_network import restore, state_of
from fedmepd.training.round import RoundTraining


class PersonalNetworkSettings(Section):
    """The personal network of a site."""

    strength: float = Field(
        0.1, ge=0, le=1e6, description="pull towards the received weights, lambda in the paper; tune in 0.01, 0.1, 1"
    )


class DittoSettings(Settings):
    """The settings of a Ditto job."""

    personal: PersonalNetworkSettings = PersonalNetworkSettings()


def _figures(task: Task) -> Bounds:
    return {"personal_loss": plain_losses(task)["total"]}


class DittoAtSite(AtSite):
    """Trains two networks, and validates and tests the personal one."""

    settings: DittoSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        self._personal = copy.deepcopy(network)
        self._optimizer = make_optimizer(self._personal, self.settings.training)

    def train(self, training: RoundTraining, received: Tensors) -> None:
        training.planned *= 2
        training.run()
        term = ProximalTerm(self._personal, received, self.settings.personal.strength)
        report = EpochReport()
        training.run(network=self._personal, optimizer=self._optimizer, adjust=term.adjust, report=report)
        training.figures["personal_loss"] = report.means()["total"]

    def scored(self, network: FedMEPDNet) -> FedMEPDNet:
        return self._personal

    def state(self) -> dict[str, Any]:
        return state_of(self._personal, self._optimizer)

    def restore(self, state: dict[str, Any]) -> None:
        restore("Ditto's personal network", state, self._personal, self._optimizer)


METHOD = Method(
    name="ditto",
    title="Ditto",
    paper="Li et al., ICML 2021",
    shared="the whole network",
    personal="a second network, which the site uses",
    fusion="trains in every round like a site",
    model="trained here alone, held near the network that the sites average",
    global_model="the whole network averaged over the sites and the fusion site in every round",
    at_server=FedAvgAtServer,
    at_site=DittoAtSite,
    settings=DittoSettings,
    figures=_figures,
    networks=2,
)
