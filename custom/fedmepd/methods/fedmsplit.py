"""FedMSplit: the network is split into blocks, and every participant gets its own mixture of everyone's blocks.

Chen and Zhang, KDD 2022, doi 10.1145/3534678.3539384. Blocks are the encoders, the decoder and the auxiliary decoder.
Participants whose blocks resemble each other mix more, see :mod:`fedmepd.methods.parts.mixing`.

Exchanged: the encoders of a site's modalities, the decoder and the auxiliary decoder; down as the site's own mixture.
Kept at the site: nothing. The server keeps the last mixture of every participant, on disk.

The fusion site is one of the participants, and the global model is its model after training. A participant that misses
a round, or withholds an encoder, is not in the others' mixtures of that round and keeps its own from before. Whoever
has none yet, such as a site that joins later, receives the global model's.

Code of the authors is not available, and their formulas were not available to us in their own words, so the sources
leave much open. We chose: attention by the scalar product of blocks, divided by the square root of their size; edges
between two participants as the mean attention over the blocks that both have; a local loss with
``mixing.proximal`` times the squared distance of the weights from the received mixture. All mixtures of a round are
made of the same trained blocks. The optimizer is this package's for all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field
from torch import Tensor

from fedmepd.config import FUSION_SITE, Section, Settings
from fedmepd.methods.method import AtFusionSite, AtServer, AtSite, Fuse, Fused, Method, Shapes, Store, Tensors
from fedmepd.methods.parts.blocks import in_blocks
from fedmepd.methods.parts.figures import proximal_figures
from fedmepd.methods.parts.mixing import mixing_weights, mixture, products
from fedmepd.methods.parts.proximal import ProximalTerm
from fedmepd.methods.parts.selection import of_modalities
from fedmepd.tasks.find import find_task
from fedmepd.training.round import RoundTraining


class MixingSettings(Section):
    """FedMSplit's mixtures."""

    proximal: float = Field(
        0.01, ge=0, le=1e6, description="weight of the squared distance from the received mixture in the loss, lambda"
    )


class FedMSplitSettings(Settings):
    """The settings of a FedMSplit job."""

    mixing: MixingSettings = MixingSettings()


class FedMSplitAtServer(AtServer):
    """Keeps every participant's mixture, and mixes anew when all have trained."""

    begins_with_fusion = False
    fuses_first = True

    def __init__(self, settings: FedMSplitSettings, weights: Tensors, store: Store):
        super().__init__(settings, weights, store)
        self._modalities: dict[str, Sequence[str]] = {FUSION_SITE: find_task(settings.task).modalities}
        # By participant and block, the round after which its mixture was made.
        self._mixed: dict[str, dict[str, int]] = {}
        self._figures: dict[str, dict[str, float]] = {}

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def send(self, site: str) -> Tensors:
        sent = of_modalities(self.weights, self._modalities[site])
        for block in in_blocks(sent):
            sent |= self._mixture(site, block)
        return sent

    def _mixture(self, site: str, block: str) -> Tensors:
        """What a participant was sent of a block last; nothing before its first mixture."""
        number = self._mixed.get(site, {}).get(block)
        return {} if number is None else self.store.kept(_mixture_name(site, block), number)

    def expect(self, site: str) -> Shapes:
        return {key: value.shape for key, value in of_modalities(self.weights, self._modalities[site]).items()}

    def open(self, round_number: int) -> None:
        self._round = round_number
        self._owners: dict[str, list[str]] = {}
        self._figures = {}
        # The state on disk needs these alone.
        self.store.forget_others(
            {(_mixture_name(site, block), number) for site, of in self._mixed.items() for block, number in of.items()}
        )

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        for block, of_block in in_blocks(changes).items():
            before = self.weights | self._mixture(site, block)
            self._take_trained(site, block, {key: before[key] + change for key, change in of_block.items()})

    def _take_trained(self, site: str, block: str, trained: Tensors) -> None:
        self.store.keep(_trained_name(site, block), self._round, trained)
        self._owners.setdefault(block, []).append(site)

    def begin(self, fuse: Fuse) -> None:
        return None

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        sent = self.send(FUSION_SITE)
        fused = fuse(sent, round_number)
        if fused is not None:
            for block, trained in in_blocks({key: fused.weights[key] for key in fused.trained(sent)}).items():
                self._take_trained(FUSION_SITE, block, trained)
            self.weights = fused.weights
        self._mix()
        return fused

    def _mix(self) -> None:
        # In this order always, so that no bit depends on who answered first.
        owners = {block: sorted(names) for block, names in sorted(self._owners.items())}
        loads = {block: partial(self._trained, block) for block in owners}
        weights = mixing_weights(owners, {block: products(names, loads[block]) for block, names in owners.items()})
        for block, names in owners.items():
            for name, row in zip(names, weights[block], strict=True):
                self.store.keep(_mixture_name(name, block), self._round, mixture(names, row, loads[block]))
                self._mixed.setdefault(name, {})[block] = self._round
                self._figures.setdefault(name, {}).update(_figures_of(name, block, names, row))

    def _trained(self, block: str, site: str) -> Tensors:
        return self.store.kept(_trained_name(site, block), self._round)

    def figures(self) -> dict[str, dict[str, float]]:
        return self._figures

    def state(self) -> dict[str, Any]:
        return super().state() | {"mixed": self._mixed}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._mixed = state["mixed"]


def _figures_of(site: str, block: str, owners: Sequence[str], weights: Tensor) -> dict[str, float]:
    """How much of its own block is in a mixture, and of another participant's at most; alike in a plain mean."""
    others = [weight for name, weight in zip(owners, weights.tolist(), strict=True) if name != site]
    figures = {f"mixing_own_{block}": float(weights[owners.index(site)])}
    return figures | ({f"mixing_other_{block}": max(others)} if others else {})


def _mixture_name(site: str, block: str) -> str:
    return f"{site}.{block}.mixture"


def _trained_name(site: str, block: str) -> str:
    return f"{site}.{block}.trained"


def _train(training: RoundTraining, mixture: Tensors, settings: FedMSplitSettings) -> None:
    # The loss has lambda |w - mixture|^2, the term half of its strength.
    term = ProximalTerm(training.network, mixture, 2 * settings.mixing.proximal)
    training.run(adjust=term.adjust)
    training.figures["proximal"] = term.value()


class FedMSplitAtSite(AtSite):
    """Trains near its mixture."""

    settings: FedMSplitSettings

    def train(self, training: RoundTraining, received: Tensors) -> None:
        _train(training, received, self.settings)


class FedMSplitAtFusionSite(AtFusionSite):
    """Trains like a site."""

    settings: FedMSplitSettings

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        _train(training, weights, self.settings)


METHOD = Method(
    name="fedmsplit",
    title="FedMSplit",
    paper="Chen and Zhang, KDD 2022",
    shared="the whole network, in blocks",
    personal="nothing; every participant receives a mixture of its own",
    fusion="trains in every round like a site",
    model="a mixture of all sites' blocks, weighted by their similarity to this site's, then trained here",
    global_model="the fusion site's own: a mixture of all blocks, weighted by their similarity, then trained there",
    averages=False,
    at_server=FedMSplitAtServer,
    at_site=FedMSplitAtSite,
    at_fusion_site=FedMSplitAtFusionSite,
    settings=FedMSplitSettings,
    figures=proximal_figures,
)
