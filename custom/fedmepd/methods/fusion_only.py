"""Fusion only: the network is trained at the fusion site alone, and every site uses it unchanged.

RFNet, Ding et al., ICCV 2021. Each step trains on a random subset of the modalities, so that the network
copes with missing ones.

Exchanged: the sites receive the encoders of their modalities and the decoder, and return nothing.
Kept at the site: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from fedmepd.config import Settings, TrainingSettings
from fedmepd.methods.local import LocalAtServer
from fedmepd.methods.method import AtFusionSite, AtSite, Method, Store, Tensors
from fedmepd.methods.parts.selection import of_modalities
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.round import RoundTraining


class FusionOnlyTrainingSettings(TrainingSettings):
    """Training at the fusion site."""

    modality_dropout: bool = Field(
        True, description="train on a random non-empty subset of the modalities in each step"
    )


class FusionOnlySettings(Settings):
    """The settings of a job that trains at the fusion site alone."""

    training: FusionOnlyTrainingSettings = FusionOnlyTrainingSettings()


class FusionOnlyAtServer(LocalAtServer):
    """Sends the fusion site's model to the sites in rounds with validation."""

    def __init__(self, settings: FusionOnlySettings, weights: Tensors, store: Store):
        super().__init__(settings, weights, store)
        self._modalities: dict[str, Sequence[str]] = {}
        self._due = False

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def open(self, round_number: int) -> None:
        # The sites do not train, so they need the weights only for validation.
        self._due = self.settings.validation_is_due(round_number)

    def send(self, site: str) -> Tensors:
        return of_modalities(self.weights, self._modalities[site]) if self._due else {}


class FusionOnlyAtSite(AtSite):
    """Validates and tests the fusion site's model."""

    needs_cases = False

    def train(self, training: RoundTraining, received: Tensors) -> None:
        pass

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        return {}


class FusionOnlyAtFusionSite(AtFusionSite):
    """Trains with random modalities left out."""

    settings: FusionOnlySettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        dropout = self.settings.training.modality_dropout
        training.run(choose_modalities=training.modality_dropout() if dropout else None)


METHOD = Method(
    name="fusion_only",
    title="Fusion only",
    paper="RFNet, Ding et al., ICCV 2021",
    shared="the fusion site's model",
    personal="nothing",
    fusion="trains alone",
    model="trained at the fusion site alone",
    global_model="trained at the fusion site alone",
    averages=False,
    at_server=FusionOnlyAtServer,
    at_site=FusionOnlyAtSite,
    at_fusion_site=FusionOnlyAtFusionSite,
    settings=FusionOnlySettings,
    private=True,
)
