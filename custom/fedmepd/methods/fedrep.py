"""FedRep: the encoders are shared, the decoder is the site's own, and a round trains first the one, then the other.

Collins et al., ICML 2021. The head is trained with the base frozen, then the base with the head frozen.

Exchanged: the encoders of a site's modalities (the base).
Kept at the site: the decoder and the auxiliary decoder (the head).

Departures from the paper. A round has as many steps as one of another method, so that the methods can be compared: the
first ``alternation.head_share`` of an epoch's steps train the head, the others the base. Two thirds is the share in the
authors' CIFAR-100 script, which has 15 epochs. Each part takes one step at least; a site with a single batch trains
both parts on it and so takes two steps. An encoder is averaged over the sites that have its modality, each with one
vote. The fusion site trains after the average, all at once, with a decoder of its own, as in ``fedper``.
"""

from __future__ import annotations

from itertools import islice

from pydantic import Field

from fedmepd.config import Section, Settings
from fedmepd.methods.method import AtSite, Method, Tensors
from fedmepd.methods.parts.encoders_only import EncodersAtServer
from fedmepd.methods.parts.selection import AUXILIARY, DECODER, ENCODERS
from fedmepd.training.round import RoundTraining

BASE, HEAD = (ENCODERS,), (DECODER, AUXILIARY)


class AlternationSettings(Section):
    """How a site's steps are divided."""

    head_share: float = Field(2 / 3, gt=0, lt=1, description="share of an epoch's steps that train the decoder")


class FedRepSettings(Settings):
    """The settings of a FedRep job."""

    alternation: AlternationSettings = AlternationSettings()


class FedRepAtSite(AtSite):
    """Trains the decoder, then the encoders."""

    settings: FedRepSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        steps = training.steps_per_epoch()
        head = min(max(1, round(self.settings.alternation.head_share * steps)), max(1, steps - 1))
        for batches in training.epochs():
            if steps == 1:
                batches = iter([*batches] * 2)
            training.steps(islice(batches, head), frozen=BASE)
            training.steps(batches, frozen=HEAD)


METHOD = Method(
    name="fedrep",
    title="FedRep",
    paper="Collins et al., ICML 2021",
    shared="encoders",
    personal="decoder",
    fusion="trains the averaged encoders in every round, with a decoder of its own",
    model="encoders averaged with other sites' and trained at the fusion site, decoder trained here alone",
    global_model="encoders averaged over the sites, trained at the fusion site with its decoder",
    at_server=EncodersAtServer,
    at_site=FedRepAtSite,
    settings=FedRepSettings,
)
