"""FedNorm+: one encoder for all modalities, whose normalisations have a scale and a shift for each modality.

Bernecker et al. 2022, arXiv 2205.11096. The network is RFNet's with one encoder (``network.shared_encoder``), affine
parameters in its normalisations (``network.affine``), and a set of them for each modality in the encoder
(``network.modality_norms``).

Exchanged: the encoder's convolutions, the scales and shifts of a site's modalities, the decoder and the auxiliary
decoder.
Kept at the site: nothing.

Convolutions and decoders are averaged over all participants by their numbers of cases, and a modality's scales and
shifts over those that have the modality. The fusion site is one of the participants.

Three things differ from the paper, which segments slices of one modality each. Here a case has several modalities; the
decoder joins them, and so its normalisations have one scale and shift for all. The network normalises every image by
itself (instance normalisation), so there are no running statistics to keep apart. The paper weighs a modality's sets by
the images of that modality; we weigh them by all cases of the participants that have it, which is the same where all
cases of a site have the same modalities. The paper's weights were not available to us in its own words, and no code of
the authors exists.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmepd.config import NetworkSettings, Settings
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import Method


class FedNormPlusNetworkSettings(NetworkSettings):
    """The network."""

    shared_encoder: Literal[True] = Field(True, description="one encoder for all modalities")
    affine: Literal[True] = Field(True, description="normalisations have a scale and a shift")
    modality_norms: Literal[True] = Field(True, description="the encoder has a scale and a shift for each modality")


class FedNormPlusSettings(Settings):
    """The settings of a FedNorm+ job."""

    network: FedNormPlusNetworkSettings = FedNormPlusNetworkSettings()


METHOD = Method(
    name="fednorm_plus",
    title="FedNorm+",
    paper="Bernecker et al. 2022, arXiv 2205.11096",
    shared="the whole network: one encoder with a scale and a shift of its normalisations for each modality, decoder",
    personal="nothing",
    fusion="trains in every round like a site",
    model="one encoder for all modalities and the decoder averaged with other sites' in every round, then trained here",
    global_model="one encoder for all modalities and the decoder averaged over the sites and the fusion site in every "
    "round",
    at_server=FedAvgAtServer,
    settings=FedNormPlusSettings,
)
