"""FedAMM: modalities that learn slowly are helped by distillation, and encoders averaged by how often they occur.

Shi et al., MICCAI 2025, LNCS 15967, pp. 203-213. The loss is in :mod:`fedmepd.methods.parts.fedamm_loss`.

Exchanged: the encoders of a site's modalities, the decoder and the auxiliary decoder; for every subset of its
modalities the share of cases with it, and of each class that at least ``prototypes.cases`` cases held in their crops
the share of these cases and their mean feature (prototype).
Kept at the site: nothing.

An encoder is averaged over the participants that have its modality, weighted by their cases with it. Everything else is
a plain mean over the participants. The server moves its prototypes slowly to the mean over all cases, and sends a site
those of its own subsets. The fusion site is one of the participants.

The released code is followed where paper and code differ, as far as derived code shows it. There the prototypes' term
has no gradient, so that it is a figure and nothing else; ``prototypes.gradient`` true gives it one. Where a case has a
single modality there is nothing to distil, and its auxiliary loss stays.

Five things differ. Sites send means over cases, not a prototype for every case, and none over few cases; the server
needs no more. A batch counts as one sample. A distillation term is the divergence itself, its mean over voxels, and
region maps are compared at their own resolution. The optimizer is the one of all methods here, not a new AdamW in every
round. The paper's weights for the pace of modalities are computed after a client's single epoch and not used, so they
are left out.

FedAMM is made for modalities that are missing in single cases. At a site whose cases all have the same ones w_m is 1,
and its prototypes meet others only where a second participant has the same subset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fedmepd.config import FUSION_SITE, Section, Settings
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.methods.method import AtFusionSite, AtServer, AtSite, Fuse, Fused, Method, Shapes, Store, Tensors
from fedmepd.methods.parts.aggregation import aggregation
from fedmepd.methods.parts.exact_sum import ExactSum
from fedmepd.methods.parts.fedamm_loss import FedAMMLoss, Prototypes, prototypes_of
from fedmepd.methods.parts.figures import LARGEST, NOTHING, Bounds, plain_losses
from fedmepd.methods.parts.selection import EXTRA, copy_into, encoder_of, of_modalities, parts
from fedmepd.networks.network import SHARED, FedMEPDNet
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.training.round import RoundTraining

MEANS, COUNTS, CASES, SHARES = (f"{EXTRA}{name}" for name in ("means", "counts", "cases", "shares"))
# Means are at most 2^10: divided by this, a mean times the largest number of cases has room in an exact sum.
_SCALE = 2.0**6


class PrototypeSettings(Section):
    """FedAMM's class prototypes."""

    gradient: bool = Field(
        False, description="the distance to the prototypes of all participants has a gradient; false: as released"
    )
    cases: int = Field(3, ge=1, le=10_000, description="smallest number of patients behind a prototype that leaves")
    ema: float = Field(0.999, ge=0, lt=1, description="share of the old prototype kept in each round")


class FedAMMSettings(Settings):
    """The settings of a FedAMM job."""

    fewest_cases = (("prototypes", "cases"),)

    prototypes: PrototypeSettings = PrototypeSettings()


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all non-empty subsets of modalities, small ones first."""
    return [subset for count in range(1, len(modalities) + 1) for subset in combinations(modalities, count)]


class FedAMMAtServer(AtServer):
    """Averages networks, and keeps a prototype for each class and subset of modalities."""

    begins_with_fusion = False
    fuses_first = True

    settings: FedAMMSettings

    def __init__(self, settings: FedAMMSettings, weights: Tensors, store: Store):
        super().__init__(settings, weights, store)
        task = find_task(settings.task)
        self._modalities: dict[str, Sequence[str]] = {FUSION_SITE: task.modalities}
        self._subsets = subsets_of(task.modalities)
        shape = len(self._subsets), len(task.classes), settings.network.width
        self._means, self._known = torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.bool)
        # By participant, its cases with each subset in the last round that it took part in.
        self._cases: dict[str, Tensor] = {}

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def send(self, site: str) -> Tensors:
        return of_modalities(self.weights, self._modalities[site]) | self._prototypes(site)

    def _prototypes(self, owner: str) -> Tensors:
        """Of a participant's subsets: prototypes, which there are, and its share of all cases."""
        rows = self._rows(owner)
        none = torch.zeros(len(self._subsets), dtype=torch.float64)
        total = sum((self._cases[name] for name in sorted(self._cases)), none)
        share = self._cases.get(owner, none) / total.clamp_min(1)
        return {MEANS: self._means[rows], COUNTS: self._known[rows].float(), SHARES: share[rows].float()}

    def _rows(self, owner: str) -> list[int]:
        return [self._subsets.index(subset) for subset in subsets_of(self._modalities[owner])]

    def expect(self, site: str) -> Shapes:
        return {key: value.shape for key, value in of_modalities(self.weights, self._modalities[site]).items()}

    def expect_extras(self, owner: str) -> Shapes:
        shape = len(self._rows(owner)), *self._means.shape[1:]
        return {MEANS: torch.Size(shape), COUNTS: torch.Size(shape[:2]), CASES: torch.Size(shape[:1])}

    def open(self, round_number: int) -> None:
        self._sums = aggregation(self.settings.aggregation, self.weights, list(self.weights), 0.0, self.store)
        self._mean_sums, self._count_sums = ExactSum(self._means.shape), ExactSum(self._known.shape)
        self._counted: dict[str, Tensor] = {}
        self._changes: Tensors = {}

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        # The weights of its encoders come with the rest.
        self._changes = changes

    def take_extras(self, site: str, extras: Tensors, cases: int) -> None:
        rows = self._rows(site)
        # Shares of all its cases, which add up to 1: no site can claim more of them than it has.
        of_subsets = torch.zeros(len(self._subsets), dtype=torch.float64)
        shares = extras[CASES].double().clamp(0, 1)
        of_subsets[rows] = shares / shares.sum().clamp_min(1e-12) * cases
        self._counted[site] = of_subsets
        for key, change in self._changes.items():
            modality = encoder_of(key)
            having = [place for place, subset in enumerate(self._subsets) if modality in (SHARED, *subset)]
            self._sums.add(site, key, change, 1.0 if modality is None else float(of_subsets[having].sum()))
        self._changes = {}
        mask = torch.zeros(len(self._subsets), dtype=torch.bool)
        mask[rows] = True
        counts = extras[COUNTS].double().clamp(0, 1) * cases
        self._count_sums.add(counts, rows=mask)
        self._mean_sums.add(extras[MEANS].double() * counts[..., None] / _SCALE, rows=mask)

    def begin(self, fuse: Fuse) -> None:
        return None

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        fused = fuse(self.weights, round_number, self._prototypes(FUSION_SITE))
        if fused is not None:
            self.take(FUSION_SITE, fused.changes(self.weights), fused.cases)
            self.take_extras(FUSION_SITE, fused.extras, fused.cases)
        self.weights = self._sums.result()
        self._cases |= self._counted
        counts = self._count_sums.value()
        means = self._mean_sums.value() * _SCALE / counts[..., None].clamp_min(1e-12)
        keep = torch.where(self._known, self.settings.prototypes.ema, 0.0)[..., None]
        moved = (keep * self._means.double() + (1 - keep) * means).float()
        self._means = torch.where(counts[..., None] > 0, moved, self._means)
        self._known = self._known | (counts > 0)
        return fused

    def state(self) -> dict[str, Any]:
        return super().state() | {"means": self._means, "known": self._known, "cases": self._cases}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._means, self._known, self._cases = state["means"], state["known"], state["cases"]


class _Participant:
    """Trains with FedAMM's loss, and says what its cases show."""

    def __init__(self, settings: FedAMMSettings, cases: Sequence[Case], modalities: Sequence[str]):
        self._settings, self._subsets = settings, subsets_of(modalities)
        self._numbers = Counter(case.modalities for case in cases)
        self._total = len(cases)
        self._patients = [case.patient for case in cases]
        having = {name: sum(case.modalities.count(name) for case in cases) for name in modalities}
        self._weights = {name: self._total / count if count else 1.0 for name, count in having.items()}

    def train(self, training: RoundTraining, extras: Tensors) -> None:
        known = {
            subset: Prototypes(extras[MEANS][row], extras[COUNTS][row] > 0, float(extras[SHARES][row]))
            for row, subset in enumerate(self._subsets)
        }
        self._loss = FedAMMLoss(self._weights, known, self._settings.prototypes.gradient)
        training.run(loss=self._loss)
        training.figures |= {f"relative_pace_{name}": fmean(of_steps) for name, of_steps in self._loss.paces.items()}

    def leave(self) -> Tensors:
        classes, width = len(find_task(self._settings.task).classes), self._settings.network.width
        means, counts = torch.zeros(len(self._subsets), classes, width), torch.zeros(len(self._subsets), classes)
        for row, subset in enumerate(self._subsets):
            seen = [
                (of, there, self._patients[place])
                for place, (modalities, of, there) in self._loss.seen.items()
                if modalities == subset
            ]
            if seen:
                means[row], counts[row] = prototypes_of(seen, self._settings.prototypes.cases)
        cases = torch.tensor([float(self._numbers[subset]) for subset in self._subsets])
        return {MEANS: means, COUNTS: counts / self._total, CASES: cases / self._total}


class FedAMMAtSite(AtSite):
    """Trains with FedAMM's loss, and sends its prototypes."""

    settings: FedAMMSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        self._participant = _Participant(self.settings, data.train, data.modalities)

    def take_in(self, network: FedMEPDNet, received: Tensors, round_number: int) -> None:
        copy_into(network, {key: value for key, value in received.items() if not key.startswith(EXTRA)})

    def train(self, training: RoundTraining, received: Tensors) -> None:
        self._participant.train(training, parts(received, (EXTRA,)))

    def leave(self, round_number: int) -> Tensors:
        return self._participant.leave()


class FedAMMAtFusionSite(AtFusionSite):
    """The same at the fusion site."""

    settings: FedAMMSettings

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        self._participant = _Participant(self.settings, self.cases(data), data.modalities)

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        self._participant.train(training, extras)

    def leave(self, round_number: int) -> Tensors:
        return self._participant.leave()


def _losses(task: Task) -> Bounds:
    # A modality that few cases have weighs as much more; a divergence may be rounded to something below 0.
    return plain_losses(task) | dict.fromkeys(("total", "divergence", "similarity", "prototypes"), (-1.0, LARGEST))


def _figures(task: Task) -> Bounds:
    # One modality's distance, divided by the mean of those that a case has.
    return {f"relative_pace_{name}": (NOTHING, len(task.modalities) + 0.01) for name in task.modalities}


METHOD = Method(
    name="fedamm",
    title="FedAMM",
    paper="Shi et al., MICCAI 2025",
    shared="the whole network, mean features of classes (prototypes)",
    personal="nothing",
    fusion="trains in every round like a site",
    model="the whole network averaged with other sites' in every round, then trained here with distillation between "
    "modalities",
    global_model="the whole network averaged over the sites and the fusion site in every round, all trained with "
    "distillation between modalities",
    at_server=FedAMMAtServer,
    at_site=FedAMMAtSite,
    at_fusion_site=FedAMMAtFusionSite,
    settings=FedAMMSettings,
    losses=_losses,
    figures=_figures,
)
