"""Fusion, then fine-tuning: a network is trained at the fusion site alone, then every site trains it on alone.

No paper: the baseline that a federation has to beat, because nothing that the sites learn leaves them. The network is
RFNet (Ding et al., ICCV 2021), trained with random modalities left out.

Exchanged: each site receives the fusion site's network once, when it begins to train, and before that in rounds with
validation. It returns nothing.
Kept at the site: everything it trains.

Our choices. Of the job's ``rounds`` the fusion site trains in the first, the sites in the last ``tuning.share``, half
of them. Each part has a learning rate that decays over its own rounds; the sites' starts at ``tuning.rate_share`` of
``training.learning_rate``. A site tests the model with the best validation, tuned or not.
"""

from __future__ import annotations

from pydantic import Field

from fedmepd.methods.fusion_only import FusionOnlyAtFusionSite, FusionOnlyAtServer, FusionOnlySettings
from fedmepd.methods.method import Method, Tensors
from fedmepd.methods.parts.alone_at_last import (
    AloneAtLastAtServer,
    AloneAtLastAtSite,
    AloneAtLastSettings,
    TuningSettings,
)
from fedmepd.methods.parts.selection import AUXILIARY, SEGMENTING
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.epoch import learning_rate
from fedmepd.training.round import RoundTraining


class FineTuningSettings(TuningSettings):
    """The rounds in which the sites train."""

    share: float = Field(
        0.5, gt=0, lt=1, description="share of the rounds, at the end, in which the sites train; at least one round"
    )
    rate_share: float = Field(
        0.1, gt=0, le=1e6, description="share of training.learning_rate with which the sites begin; tune in 0.1, 1"
    )


class FusionFinetuneSettings(FusionOnlySettings, AloneAtLastSettings):
    """The settings of a job that trains at the fusion site, then at every site."""

    tuning: FineTuningSettings = FineTuningSettings()


class FusionFinetuneAtServer(AloneAtLastAtServer, FusionOnlyAtServer):
    """Has the fusion site train first, and hands its network to the sites."""

    keeps = (*SEGMENTING, AUXILIARY)


class FusionFinetuneAtSite(AloneAtLastAtSite):
    """Validates the fusion site's network, and later trains it on."""

    settings: FusionFinetuneSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        number = training.round - self.last_common
        if number > 0:
            rounds = self.settings.rounds - self.last_common
            training.rate = self.settings.tuning.rate_share * learning_rate(self.settings, number - 1, rounds - 1)
            training.run()

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        return {}


class FusionFinetuneAtFusionSite(FusionOnlyAtFusionSite):
    """Trains with random modalities left out, in the first rounds."""

    settings: FusionFinetuneSettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        training.rate = learning_rate(self.settings, training.round, self.settings.last_common())
        super().train(training, weights, extras)


METHOD = Method(
    name="fusion_finetune",
    title="Fusion + fine-tuning",
    paper="no federation",
    shared="the fusion site's network, once",
    personal="the whole network from then on",
    fusion="trains alone in the first rounds",
    model="trained at the fusion site alone, then here alone",
    global_model="trained at the fusion site alone",
    averages=False,
    at_server=FusionFinetuneAtServer,
    at_site=FusionFinetuneAtSite,
    at_fusion_site=FusionFinetuneAtFusionSite,
    settings=FusionFinetuneSettings,
)
