"""perFL: FedAvg, and at last every site fine-tunes the model of the federation on its own cases.

Wang et al., arXiv 1910.10252, 2019. The site keeps the better of the models before and after.

Exchanged: the encoders of a site's modalities, the decoder, the auxiliary decoder; nothing in the last rounds.
Kept at the site: the whole network of the last rounds.

Departures from the paper. Of the job's ``rounds`` the last ``tuning.share`` are those in which the sites tune, so that
a job has as many steps as one of another method. The site keeps the model with the best validation of all rounds, which
includes the last one before tuning: that is always validated. An encoder is averaged over the sites that have its
modality, as in ``fedavg``. The fusion site trains like a site, and stops when tuning begins.

The paper leaves the budget open. Ours is a tenth of the rounds, at the learning rate of the last round with an exchange
times ``tuning.rate_factor``; until then the rate decays as in a job that ends there.
"""

from __future__ import annotations

from pydantic import Field

from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import AtFusionSite, Method, Tensors
from fedmepd.methods.parts.alone_at_last import (
    AloneAtLastAtServer,
    AloneAtLastAtSite,
    AloneAtLastSettings,
    TuningSettings,
)
from fedmepd.training.epoch import learning_rate
from fedmepd.training.round import RoundTraining


class PerFLTuningSettings(TuningSettings):
    """The last rounds, in which every site trains alone."""

    rate_factor: float = Field(
        1, gt=0, le=1e6, description="learning rate of tuning, as a multiple of the last one before; tune in 1, 10"
    )


class PerFLSettings(AloneAtLastSettings):
    """The settings of a perFL job."""

    tuning: PerFLTuningSettings = PerFLTuningSettings()

    def rate(self, round_number: int) -> float:
        """Returns the learning rate of a round."""
        last = self.last_common()
        if round_number <= last:
            return learning_rate(self, round_number, last)
        return self.tuning.rate_factor * learning_rate(self, last, last)


class PerFLAtServer(AloneAtLastAtServer, FedAvgAtServer):
    """Averages as FedAvg does until the sites tune."""


class PerFLAtSite(AloneAtLastAtSite):
    """Trains, and in the last rounds tunes."""

    settings: PerFLSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        training.rate = self.settings.rate(training.round)
        training.run()


class PerFLAtFusionSite(AtFusionSite):
    """Trains like a site."""

    settings: PerFLSettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        training.rate = self.settings.rate(training.round)
        training.run()


METHOD = Method(
    name="perfl",
    title="perFL",
    paper="Wang et al., arXiv 2019",
    shared="the whole network",
    personal="the whole network of the last rounds",
    fusion="trains like a site in the rounds with an exchange",
    model="the whole network averaged with other sites', then tuned here alone",
    global_model="the whole network averaged over the sites and the fusion site in every round until the sites tune",
    at_server=PerFLAtServer,
    at_site=PerFLAtSite,
    at_fusion_site=PerFLAtFusionSite,
    settings=PerFLSettings,
)
