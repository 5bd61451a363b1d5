"""FedIoT: encoders averaged with more weight on sites with several modalities; the server trains the decoder on them.

Zhao, Barnaghi and Haddadi, IoTDI 2022, arXiv 2109.04833.

Exchanged: the encoders of a site's modalities; the decoder is sent to the sites and does not come back.
Kept at the site: the auxiliary decoder, and the decoder where ``fediot.personal_decoder`` is true.

A modality's encoder is the mean over the sites that have it. A site's weight is its number of cases, times
``fediot.multimodal_weight`` if it has more than one modality. Then the fusion site trains the decoder for an epoch
while all encoders stand still.

The paper is about sensors: clients train autoencoders without labels, and the server a classifier on labelled data. Our
sites have labels, so they train encoders and decoder with the loss of all methods here, for one epoch, and only the
encoders come back. With the paper's two epochs at a client and five of the server, a job needs
``training.local_epochs`` 2 and ``training.fusion_epochs`` 5. Whether FedMEPD's authors sent the decoder or left it at
the sites is unknown; both can be run.
"""

from __future__ import annotations

from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.methods.method import AtFusionSite, AtSite, Fuse, Method, Tensors
from fedmepd.methods.parts.encoders_only import EncodersAtServer
from fedmepd.methods.parts.selection import DECODER, ENCODERS, parts
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.round import RoundTraining


class FedIoTSection(Section):
    """FedIoT's weights, and who has the decoder."""

    multimodal_weight: float = Field(
        100, ge=1, le=1e6, description="how many times a case of a site with several modalities counts, alpha"
    )
    personal_decoder: bool = Field(False, description="sites keep decoders of their own instead of receiving one")


class FedIoTSettings(Settings):
    """The settings of a FedIoT job."""

    fediot: FedIoTSection = FedIoTSection()


class FedIoTAtServer(EncodersAtServer):
    """Averages encoders with its own weights, and has the decoder trained on them."""

    begins_with_fusion = False

    settings: FedIoTSettings

    def send(self, site: str) -> Tensors:
        decoder = {} if self.settings.fediot.personal_decoder else parts(self.weights, (DECODER,))
        return super().send(site) | decoder

    def weight(self, site: str, cases: int) -> float:
        # Divided, not multiplied: exact sums have room for weights up to the largest number of cases.
        single = len(self._modalities[site]) == 1
        return cases / self.settings.fediot.multimodal_weight if single else float(cases)

    def begin(self, fuse: Fuse) -> None:
        return None


class FedIoTAtSite(AtSite):
    """Returns encoders alone."""

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        return super().give(network, parts(received, (ENCODERS,)))


class FedIoTAtFusionSite(AtFusionSite):
    """Trains the decoder while the encoders stand still."""

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        training.run(frozen=(ENCODERS,))


METHOD = Method(
    name="fediot",
    title="FedIoT",
    paper="Zhao et al., IoTDI 2022",
    shared="encoders; sites with several modalities have more weight",
    personal="nothing; as a setting says, the decoder",
    fusion="trains the decoder in every round, with the encoders as they are",
    model="encoders averaged with other sites' and, unless it is the site's own, the fusion site's decoder, then "
    "trained here",
    global_model="encoders averaged over the sites in every round, and a decoder trained at the fusion site",
    at_server=FedIoTAtServer,
    at_site=FedIoTAtSite,
    at_fusion_site=FedIoTAtFusionSite,
    settings=FedIoTSettings,
)
