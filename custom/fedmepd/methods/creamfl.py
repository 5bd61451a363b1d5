"""CreamFL: no weights travel; sites and server compare how they represent cases that all of them hold.

Yu et al., ICLR 2023, arXiv 2302.08888.

Exchanged: of each of ``contrast.items`` cases of the fusion site and each modality a vector, up and down.
Kept at the site: the whole network.

**For phantoms alone.** Every site needs the fusion site's images. To send patients' images to hospitals is what this
package exists to avoid, so a job with patients' data is refused.

A round: every site trains as usual, and then on the public cases with a contrast. Its vector of a case shall be nearer
to the server's vectors of the same case in its other modalities than to those of other cases, and nearer to the
server's vector of the case in the same modality than to its own from before the round. The server weighs the sites'
vectors of a case by how clearly they tell it from the others. The fusion site draws its own vectors to these, and then
trains for an epoch.

Four things differ. The paper has images and texts, and 50,000 public pairs; here are up to four modalities and a few
cases, so that the contrast is weak. The vector of a case is the mean coarsest feature of a crop about its centre,
mapped to ``contrast.dimension`` numbers. A modality's counterpart is the mean over all other modalities. Losses are
means over a site's modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedmepd.config import FUSION_SITE, Section, Settings
from fedmepd.data.site import SiteData, open_fusion_data
from fedmepd.methods.local import LocalAtServer
from fedmepd.methods.method import AtFusionSite, AtSite, Fuse, Fused, Method, Shapes, Store, Tensors
from fedmepd.methods.parts.figures import LARGEST, NOTHING, Bounds
from fedmepd.methods.parts.representations import Projections, PublicCases, agreed, contrast, of_others, represent
from fedmepd.methods.parts.selection import EXTRA
from fedmepd.networks.network import FedMEPDNet
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.training.epoch import EpochReport, Step
from fedmepd.training.losses import Loss
from fedmepd.training.round import RoundTraining

VECTORS, AGREED, THERE = (f"{EXTRA}{name}" for name in ("vectors", "agreed", "there"))


class ContrastSettings(Section):
    """CreamFL's comparison of representations."""

    items: int = Field(
        16, ge=2, le=10_000, description="number of public cases, the first of the fusion site's training cases"
    )
    dimension: int = Field(64, ge=2, le=4096, description="length of the vector of a case")
    weight: float = Field(0.5, ge=0, le=1e6, description="weight of the contrast at a site")
    temperature: float = Field(0.5, gt=0, le=1e6, description="divides the scalar products of vectors in the contrast")
    distillation: float = Field(0.3, ge=0, le=1e6, description="weight of the squared distance at the fusion site")


class CreamFLSettings(Settings):
    """The settings of a CreamFL job."""

    contrast: ContrastSettings = ContrastSettings()


class CreamFLAtServer(LocalAtServer):
    """Keeps the fusion site's model and vectors, and makes one vector of those of all sites."""

    settings: CreamFLSettings

    def __init__(self, settings: CreamFLSettings, weights: Tensors, store: Store):
        super().__init__(settings, weights, store)
        self._all = find_task(settings.task).modalities
        self._modalities: dict[str, Sequence[str]] = {FUSION_SITE: self._all}
        self._vectors: Tensor | None = None

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def send(self, site: str) -> Tensors:
        return {VECTORS: self._vectors}

    def expect_extras(self, owner: str) -> Shapes:
        section = self.settings.contrast
        return {VECTORS: torch.Size((len(self._modalities[owner]), section.items, section.dimension))}

    def open(self, round_number: int) -> None:
        self._taken: dict[str, Tensor] = {}

    def take_extras(self, site: str, extras: Tensors, cases: int) -> None:
        # Only the direction counts, so that no site has more weight than another.
        self._taken[site] = F.normalize(extras[VECTORS].float(), dim=2)

    def begin(self, fuse: Fuse) -> Fused:
        fused = super().begin(fuse)
        self._vectors = fused.extras[VECTORS]
        return fused

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        fused = fuse(self.weights, round_number, self._agreed())
        if fused is not None:
            self.weights, self._vectors = fused.weights, fused.extras[VECTORS]
        return fused

    def _agreed(self) -> Tensors:
        """What the sites' vectors come to, and of which modalities there are any."""
        others = of_others(self._vectors)
        target, there = torch.zeros_like(self._vectors), torch.zeros(len(self._all))
        for place, modality in enumerate(self._all):
            owners = [site for site in sorted(self._taken) if modality in self._modalities[site]]
            if owners:
                own = [self._taken[site][self._modalities[site].index(modality)] for site in owners]
                target[place], there[place] = agreed(own, others[place]), 1
        return {AGREED: target, THERE: there}

    def state(self) -> dict[str, Any]:
        return super().state() | {"vectors": self._vectors}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._vectors = state["vectors"]


class _Participant:
    """The public cases, and what maps their features to vectors."""

    def __init__(self, settings: CreamFLSettings, network: FedMEPDNet, public: SiteData):
        self._settings, self._network = settings, network
        self.cases = PublicCases(settings, public, settings.contrast.items)
        self.projections = Projections(settings, network.modalities, settings.contrast.dimension)
        self.projections.to(next(network.parameters()).device)
        self._optimizer = torch.optim.Adam(self.projections.parameters(), weight_decay=settings.training.weight_decay)

    def vectors(self) -> Tensor:
        """The network's vectors of all cases, (M, cases, D)."""
        return represent(self._network, self.projections, self.cases, self._settings.training.training_precision())

    def train(self, training: RoundTraining, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        """Trains encoders and projections on all public cases; returns the mean loss.

        Args:
            training: of the round.
            loss: of some cases: their vectors (M, B, D), and which of all cases they are (B,).
        """
        self._optimizer.param_groups[0]["lr"] = training.rate
        training.planned += len(self.cases)

        def of_step(step: Step) -> Loss:
            vectors = self.projections(step.outputs.encoded[-1], step.modalities)
            found = loss(vectors, torch.tensor(step.batch.cases, device=vectors.device))
            none = found.new_zeros(()), found.new_zeros(())
            return Loss(found, none, {1: none}, [none])

        def project(step: Step) -> None:
            self._optimizer.step()
            self._optimizer.zero_grad()

        report = EpochReport()
        batches = self.cases.batches(self._network.modalities)
        training.steps(batches, loss=of_step, observe=project, report=report)
        return report.means()["total"]

    def state(self) -> dict[str, Any]:
        """Everything that it keeps from round to round."""
        return {"projections": self.projections.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`. Of a modality that was not there the projection starts anew."""
        same = state["projections"].keys() == self.projections.state_dict().keys()
        own = {key: value for key, value in state["projections"].items() if key in self.projections.state_dict()}
        self.projections.load_state_dict(own, strict=False)
        if same:
            self._optimizer.load_state_dict(state["optimizer"])


class _Represents:
    """What sites and fusion site have in common: they send vectors, and keep what makes them."""

    _participant: _Participant

    def leave(self, round_number: int) -> Tensors:
        return {VECTORS: self._participant.vectors()}

    def state(self) -> dict[str, Any]:
        return self._participant.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._participant.restore(state)


class CreamFLAtSite(_Represents, AtSite):
    """Trains as usual, then compares its vectors with the server's."""

    settings: CreamFLSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        # Phantoms are drawn from the job's seed, so that every site can make those of the fusion site.
        public = open_fusion_data("", self.settings, SiteSettings(cache=data.cache.parent))
        self._participant = _Participant(self.settings, network, public)

    def take_in(self, network: FedMEPDNet, received: Tensors, round_number: int) -> None:
        pass

    def train(self, training: RoundTraining, received: Tensors) -> None:
        section, modalities = self.settings.contrast, find_task(self.settings.task).modalities
        rows = [modalities.index(name) for name in training.network.modalities]
        device = next(training.network.parameters()).device
        server = received[VECTORS].float().to(device)
        same, others, before = server[rows], of_others(server)[rows], self._participant.vectors().to(device)
        training.run()

        def loss(vectors: Tensor, cases: Tensor) -> Tensor:
            terms = [
                contrast(own, before[place, cases], same[place, cases], others[place], cases, section.temperature)
                for place, own in enumerate(vectors)
            ]
            return section.weight * torch.stack(terms).mean()

        training.figures["contrast"] = self._participant.train(training, loss)


class CreamFLAtFusionSite(_Represents, AtFusionSite):
    """Draws its vectors to those that the sites agree on, and trains as usual."""

    settings: CreamFLSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        self._participant = _Participant(self.settings, network, data)

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        if extras:
            device = next(training.network.parameters()).device
            target, there = extras[AGREED].to(device), extras[THERE].to(device)

            def loss(vectors: Tensor, cases: Tensor) -> Tensor:
                distances = F.mse_loss(vectors, target[:, cases], reduction="none").mean(dim=(1, 2))
                return self.settings.contrast.distillation * (distances * there).sum() / there.sum().clamp_min(1)

            training.figures["distillation"] = self._participant.train(training, loss)
        training.run()


def _figures(task: Task) -> Bounds:
    return dict.fromkeys(("contrast", "distillation"), (NOTHING, LARGEST))


METHOD = Method(
    name="creamfl",
    title="CreamFL",
    paper="Yu et al., ICLR 2023",
    shared="vectors that represent the fusion site's cases, which all sites hold",
    personal="the whole network",
    fusion="trains in every round, after drawing its vectors to those of the sites",
    model="trained here, and on the fusion site's images to represent them as the fusion site does",
    global_model="trained at the fusion site, and drawn to the sites' representations of its cases",
    averages=False,
    at_server=CreamFLAtServer,
    at_site=CreamFLAtSite,
    at_fusion_site=CreamFLAtFusionSite,
    settings=CreamFLSettings,
    figures=_figures,
    phantoms_only="every site would need the images of the fusion site's patients",
)
