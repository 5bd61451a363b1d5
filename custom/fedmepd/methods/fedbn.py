"""FedBN: like FedAvg, but the scale and shift of every normalisation stay at home.

Li et al., ICLR 2021. The network is RFNet's with affine parameters in its normalisations (``network.affine``).

Exchanged: the encoders of a site's modalities, the decoder and the auxiliary decoder, without normalisations.
Kept at the site: scale and shift of every normalisation.

Two things differ from the paper. The network normalises every image by itself (instance normalisation), so there are no
running statistics to keep, only scales and shifts. The global model has those of the fusion site.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmepd.config import NetworkSettings, Settings
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.method import Method, Tensors

_NORMALISATION = ".norm."


class FedBNNetworkSettings(NetworkSettings):
    """The network."""

    modality_norms: Literal[False] = Field(False, description="a shared encoder has the same scale and shift for all")
    affine: Literal[True] = Field(True, description="normalisations have a scale and a shift, which stay at a site")


class FedBNSettings(Settings):
    """The settings of a FedBN job."""

    network: FedBNNetworkSettings = FedBNNetworkSettings()


class FedBNAtServer(FedAvgAtServer):
    """Averages what sites share. Of normalisations only the fusion site returns any, so its own are the global ones."""

    def send(self, site: str) -> Tensors:
        return {key: value for key, value in super().send(site).items() if _NORMALISATION not in key}


METHOD = Method(
    name="fedbn",
    title="FedBN",
    paper="Li et al., ICLR 2021",
    shared="the network without scale and shift of its normalisations",
    personal="scale and shift of every normalisation",
    fusion="trains every round as one of the sites",
    model="the network averaged with other sites' every round but for its normalisations, then trained here",
    global_model="the network averaged over the sites and the fusion site every round, with the fusion site's "
    "normalisations",
    at_server=FedBNAtServer,
    settings=FedBNSettings,
    private=True,
)
