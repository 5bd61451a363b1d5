"""FedAvg: every part of the network is averaged over all participants, weighted by their numbers of cases.

McMahan et al., AISTATS 2017. The fusion site is one of the participants.

With ``training.modality_dropout`` every step of a site, and of the fusion site, leaves out some of the modalities that
its cases have, as FedUniBrain (Wagner et al., WACV 2025) does.

Exchanged: the encoders of a site's modalities, the decoder, the auxiliary decoder.
Kept at the site: nothing.

One thing differs from the paper: an encoder is averaged over the sites that have its modality, because the others have
no such encoder. ``network.shared_encoder`` gives one encoder for all modalities, which is the variant that FedMEPD's
paper compares with.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from fedmepd.config import FUSION_SITE, Settings, TrainingSettings
from fedmepd.methods.method import AtFusionSite, AtServer, AtSite, Fuse, Fused, Method, Shapes, Store, Tensors
from fedmepd.methods.parts.aggregation import aggregation
from fedmepd.methods.parts.selection import of_modalities
from fedmepd.training.round import RoundTraining


class FedAvgTrainingSettings(TrainingSettings):
    """Training at every participant."""

    modality_dropout: bool = Field(
        False, description="train on a random non-empty subset of a case's modalities in each step"
    )


class FedAvgSettings(Settings):
    """The settings of a FedAvg job."""

    training: FedAvgTrainingSettings = FedAvgTrainingSettings()


class FedAvgAtServer(AtServer):
    """Averages the whole network over the sites and the fusion site."""

    begins_with_fusion = False
    fuses_first = True

    def __init__(self, settings: Settings, weights: Tensors, store: Store):
        super().__init__(settings, weights, store)
        self._modalities: dict[str, Sequence[str]] = {}

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def send(self, site: str) -> Tensors:
        return of_modalities(self.weights, self._modalities[site])

    def expect(self, site: str) -> Shapes:
        return {key: value.shape for key, value in self.send(site).items()}

    def open(self, round_number: int) -> None:
        self._sums = aggregation(self.settings.aggregation, self.weights, list(self.weights), 0.0, self.store)

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        for key, change in changes.items():
            self._sums.add(site, key, change, float(cases))

    def begin(self, fuse: Fuse) -> None:
        return None

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        fused = fuse(self.weights, round_number)
        if fused is not None:
            self.take(FUSION_SITE, fused.changes(self.weights), fused.cases)
        self.weights = self._sums.result()
        return fused


def _train(training: RoundTraining, settings: FedAvgSettings) -> None:
    dropout = settings.training.modality_dropout
    training.run(choose_modalities=training.modality_dropout() if dropout else None)


class FedAvgAtSite(AtSite):
    """Trains, with random modalities left out if that is set."""

    settings: FedAvgSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        _train(training, self.settings)


class FedAvgAtFusionSite(AtFusionSite):
    """Trains like a site."""

    settings: FedAvgSettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        _train(training, self.settings)


METHOD = Method(
    name="fedavg",
    title="FedAvg",
    paper="McMahan et al., AISTATS 2017",
    shared="the whole network",
    personal="nothing",
    fusion="trains in every round like a site",
    model="the whole network averaged with other sites' in every round, then trained here",
    global_model="the whole network averaged over the sites and the fusion site in every round",
    at_server=FedAvgAtServer,
    at_site=FedAvgAtSite,
    at_fusion_site=FedAvgAtFusionSite,
    settings=FedAvgSettings,
    private=True,
)
