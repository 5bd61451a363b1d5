"""FedProx: FedAvg in which local training is held near the weights that the round began with.

Li et al., MLSys 2020. Every participant minimises its loss plus (mu/2) |w - w_r|^2, w_r being the weights that it
received.

Exchanged: the encoders of a site's modalities, the decoder, the auxiliary decoder.
Kept at the site: nothing.

Departures from the paper. An encoder is averaged over the sites that have its modality, as in ``fedavg``. The optimizer
is Adam. The fusion site trains like a site, with the term. The authors tune mu between 0.001 and 1; 0.001 is the value
of two benchmarks with medical images (FLamby's KiTS19, FL-MedSegBench's FeTS). The figure ``proximal`` is the term at
the end of a round.
"""

from __future__ import annotations

from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import AtFusionSite, AtSite, Method, Tensors
from fedmepd.methods.parts.figures import proximal_figures
from fedmepd.methods.parts.proximal import ProximalTerm
from fedmepd.training.round import RoundTraining


class ProximalSettings(Section):
    """The proximal term."""

    mu: float = Field(
        0.001,
        ge=0,
        le=1e6,
        description="strength of the pull towards the received weights; tune in 0.001, 0.01, 0.1, 0.5, 1",
    )


class FedProxSettings(Settings):
    """The settings of a FedProx job."""

    proximal: ProximalSettings = ProximalSettings()


def _train(training: RoundTraining, given: Tensors, settings: FedProxSettings) -> None:
    term = ProximalTerm(training.network, given, settings.proximal.mu)
    training.run(adjust=term.adjust)
    training.figures["proximal"] = term.value()


class FedProxAtSite(AtSite):
    """Trains near what it received."""

    settings: FedProxSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        _train(training, received, self.settings)


class FedProxAtFusionSite(AtFusionSite):
    """Trains like a site."""

    settings: FedProxSettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        _train(training, weights, self.settings)


METHOD = Method(
    name="fedprox",
    title="FedProx",
    paper="Li et al., MLSys 2020",
    shared="the whole network",
    personal="nothing",
    fusion="trains in every round like a site",
    model="the whole network averaged with other sites' in every round, then trained here near the average",
    global_model="the whole network averaged over the sites and the fusion site in every round",
    at_server=FedAvgAtServer,
    at_site=FedProxAtSite,
    at_fusion_site=FedProxAtFusionSite,
    settings=FedProxSettings,
    figures=proximal_figures,
    private=True,
)
