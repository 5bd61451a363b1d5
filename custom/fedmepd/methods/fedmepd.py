"""FedMEPD: federated modality-specific encoders and partially personalized fusion decoder.

Liu et al., Medical Image Analysis 2025, doi 10.1016/j.media.2025.103759.

Exchanged: the encoders of a site's modalities, the decoder's filters as long as the site shares them, and the class
anchors.
Kept at the site: filters that have become personal, the calibration (LACCA), the auxiliary decoder.

With differential privacy (``privacy``), every class has one anchor, a mean over all patients with noise.

Two things differ from the paper. An anchor is the mean over at least ``calibration.anchor_cases`` cases, because it
leaves the fusion site. A site's weight for a filter is limited to a multiple of the median over the sites
(``personalization.weight_bound``), because a round that hardly changes the filter would raise it without limit; a
change of less than a hundredth of the server's leaves the weight as it is.

Settings for the paper's ablations: ``personalization.patience`` 0 makes the whole decoder personal (FedMEMA), and null
shares all of it. ``calibration.enabled`` false leaves out the calibration, and ``calibration.anchors_per_class`` 1
gives every class one anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fedmepd.config import MOST_ROUNDS, AggregationSettings, Section, Settings
from fedmepd.data.site import SiteData
from fedmepd.errors import FedMEPDError
from fedmepd.methods.method import (
    AtFusionSite,
    AtServer,
    AtSite,
    Fuse,
    Fused,
    Log,
    Method,
    Shapes,
    Store,
    Tensors,
)
from fedmepd.methods.parts.aggregation import aggregation
from fedmepd.methods.parts.anchors import Anchors
from fedmepd.methods.parts.case_vectors import CaseVectorCollector
from fedmepd.methods.parts.personal_filters import PersonalFilters, bound_weights, decoder_layers, layer_of
from fedmepd.methods.parts.private_vectors import private_means
from fedmepd.methods.parts.selection import ANCHORS, DECODER, SEGMENTING, copy_into, of_modalities, parts
from fedmepd.networks.anchors import fault_of
from fedmepd.networks.build import build_network
from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.find import find_task
from fedmepd.text_table import counted
from fedmepd.training.round import RoundTraining

PATIENCE = "patience."
# Of how the server's filter changes. A site that changes it by less says nothing of its weight there.
_LEAST_MOVE = 0.01


class CalibrationSettings(Section):
    """Anchors of the fusion site and LACCA at the sites."""

    enabled: bool = Field(True, description="sites calibrate their features with the fusion site's anchors")
    residual: bool = Field(False, description="add LACCA's output to the feature; the paper replaces the feature")
    anchors_per_class: int = Field(4, ge=1, le=64, description="clusters per class, N_k in the paper")
    anchor_ema: float = Field(0.999, ge=0, lt=1, description="share of the old anchor kept in each round")
    anchor_cases: int = Field(3, ge=1, le=10_000, description="smallest number of fusion patients behind an anchor")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the attention weights in training")


class PersonalizationSettings(Section):
    """When decoder filters become personal."""

    patience: int | None = Field(
        10,
        ge=0,
        le=255,
        description="rounds with opposing changes until a filter is personal; 0: all are personal; null: none ever",
    )
    warmup_rounds: int = Field(30, ge=0, le=MOST_ROUNDS, description="rounds before patience counts")
    weight_ema: float = Field(0.95, ge=0, le=1, description="share of the old aggregation weight H kept in each round")
    weight_bound: float = Field(
        3,
        ge=0,
        le=1e6,
        description="a site's weight H is at most this many times the median over the sites; 0: no limit",
    )


class FedMEPDAggregationSettings(AggregationSettings):
    """How the sites' updates become the global model."""

    server_share: float = Field(0.3, ge=0, le=1, description="share of the server's filter kept, lambda in the paper")


class FedMEPDSettings(Settings):
    """The settings of a FedMEPD job."""

    presets = {
        "phantom": {
            "calibration": {"residual": True, "anchor_ema": 0.9, "dropout": 0.0},
            "personalization": {"patience": 4, "warmup_rounds": 5},
        }
    }

    fewest_cases = (("calibration", "anchor_cases"),)

    calibration: CalibrationSettings = CalibrationSettings()
    aggregation: FedMEPDAggregationSettings = FedMEPDAggregationSettings()
    personalization: PersonalizationSettings = PersonalizationSettings()


class FedMEPDAtServer(AtServer):
    """Averages encoders and shared filters, has them trained further, and decides which filters become personal."""

    settings: FedMEPDSettings

    def __init__(self, settings: FedMEPDSettings, weights: Tensors, store: Store):
        super().__init__(settings, parts(weights, SEGMENTING), store)
        self._layers = decoder_layers(self.weights)
        # By convolution the weights whose changes are compared.
        self._compared = {layer: f"{layer}.weight" for layer in self._layers}
        self._modalities: dict[str, Sequence[str]] = {}
        self._filters: dict[str, PersonalFilters] = {}
        self._cases: dict[str, int] = {}
        # Of the last round: by site, how many of its weights were limited.
        self._limited: dict[str, int] = {}

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities
        if site not in self._filters:
            self._filters[site] = self._new_filters()
            bound_weights(self._filters.values(), self.settings.personalization.weight_bound)

    def _new_filters(self) -> PersonalFilters:
        settings = self.settings.personalization
        return PersonalFilters(self._layers, settings.patience, settings.weight_ema)

    def send(self, site: str) -> Tensors:
        return self._shared(site) | self._patience(site) | self.anchors

    def _shared(self, site: str) -> Tensors:
        """The encoders of the site's modalities, and the decoder's filters that it shares."""
        filters, shared = self._filters[site], {}
        for key, value in of_modalities(self.weights, self._modalities[site]).items():
            if key.startswith(DECODER):
                rows = filters.shared(layer_of(key))
                # A site that shares all filters needs no copy of its own.
                value = value if rows.all() else value[rows]
            if len(value):
                shared[key] = value
        return shared

    def _patience(self, site: str) -> Tensors:
        return {f"{PATIENCE}{layer}": left.clone() for layer, left in self._filters[site].patience.items()}

    def expect(self, site: str) -> Shapes:
        filters, shapes = self._filters[site], {}
        for key, value in of_modalities(self.weights, self._modalities[site]).items():
            rows = int(filters.shared(layer_of(key)).sum()) if key.startswith(DECODER) else len(value)
            if rows:
                shapes[key] = torch.Size((rows, *value.shape[1:]))
        return shapes

    def open(self, round_number: int) -> None:
        means = self.settings.aggregation
        self._sums = aggregation(means, self.weights, list(self.weights), means.server_share, self.store)
        self._cases, self._limited = {}, {}
        settings = self.settings.personalization
        self._compares = bool(settings.patience) and round_number > settings.warmup_rounds

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        if not changes:
            return
        self._cases[site] = cases
        if self._compares:
            self.store.save(site, {key: changes[key] for key in self._compared.values() if key in changes})
        filters = self._filters[site]
        for key, change in changes.items():
            if key.startswith(DECODER):
                shared = filters.shared(layer_of(key))
                self._sums.add(site, key, change, filters.weights[layer_of(key)][shared], shared)
            else:
                self._sums.add(site, key, change, 1.0)

    def begin(self, fuse: Fuse) -> Fused:
        fused = super().begin(fuse)
        self.anchors = fused.extras
        return fused

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        before = self.weights
        self.weights = self._sums.result()
        fused = fuse(self.weights, round_number)
        if fused is None:
            return None
        self.weights, self.anchors = fused.weights, fused.extras
        if self._compares:
            self._personalize(before)
        return fused

    def _personalize(self, before: Tensors) -> None:
        """Compares how the round changed the server's filters with how each site changed its own."""
        total = max(1, sum(self._cases.values()))
        bound = self.settings.personalization.weight_bound
        of_server = {layer: self.weights[key] - before[key] for layer, key in self._compared.items()}
        for site in sorted(self._cases):
            changes = self.store.load(site)
            of_site = {layer: changes[key] for layer, key in self._compared.items() if key in changes}
            self._filters[site].update(of_server, of_site, self._cases[site] / total, _LEAST_MOVE if bound else 0.0)
        limited = bound_weights(self._filters.values(), bound)
        self._limited = {site: count for site, count in zip(self._filters, limited, strict=True) if count}

    def figures(self) -> dict[str, dict[str, float]]:
        limited = {site: count for site, count in self._limited.items() if site in self._cases}
        directions = super().figures()
        return {
            site: directions.get(site, {}) | ({"weights_limited": float(limited[site])} if site in limited else {})
            for site in directions.keys() | limited.keys()
        }

    def remarks(self) -> dict[str, str]:
        shared = {site: int((filters.all_patience > 0).sum()) for site, filters in self._filters.items()}
        return {
            site: f"personalization.weight_bound limits its weights H of {count} of {counted(shared[site], 'filter')}"
            for site, count in self._limited.items()
            if 2 * count > shared[site]
        } | super().remarks()

    def layers(self) -> dict[str, int]:
        return self._layers

    def personal_filters(self, site: str) -> dict[str, int]:
        return self._filters[site].personal_filters()

    def state(self) -> dict[str, Any]:
        return super().state() | {"filters": self._stacked()}

    def _stacked(self) -> dict[str, Any]:
        """Patience and weights by convolution, (sites, filters): with one tensor per site there would be thousands."""
        states = [filters.state() for filters in self._filters.values()]
        stacked = {
            kind: {layer: torch.stack([state[kind][layer] for state in states]) for layer in self._layers}
            for kind in (states[0] if states else ())
        }
        return {"sites": list(self._filters), "state": stacked}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for place, site in enumerate(state["filters"]["sites"]):
            self._filters[site] = self._new_filters()
            self._filters[site].restore(
                {
                    kind: {layer: rows[place].clone() for layer, rows in layers.items()}
                    for kind, layers in state["filters"]["state"].items()
                }
            )


class FedMEPDAtSite(AtSite):
    """Loads the shared weights, keeps its personal filters, and calibrates its features with the anchors."""

    personalizes = True
    settings: FedMEPDSettings

    def network(self, modalities: Iterable[str]) -> FedMEPDNet:
        calibration = self.settings.calibration
        lacca = {"residual": calibration.residual, "dropout": calibration.dropout} if calibration.enabled else None
        return build_network(self.settings, modalities, calibration=lacca)

    def take_in(self, network: FedMEPDNet, received: Tensors, round_number: int) -> None:
        self._check_patience(network, parts(received, (PATIENCE,)))
        copy_into(network, parts(received, SEGMENTING), lambda key: _shared_rows(key, received))
        anchors = {key.removeprefix(ANCHORS): value for key, value in parts(received, (ANCHORS,)).items()}
        if fault := fault_of(anchors, network.task, network.width, self.settings.calibration.anchors_per_class):
            message = f"received anchors {fault}"
            raise FedMEPDError(message, public=message)
        if anchors:
            network.anchors = {int(level): value.float() for level, value in anchors.items()}

    def _check_patience(self, network: FedMEPDNet, patience: Tensors) -> None:
        """Their names stay in the site's own curves: a server that made up others would fill its disk."""
        filters = {layer_of(key): len(value) for key, value in network.state_dict().items() if key.startswith(DECODER)}
        for key, left in patience.items():
            if left.shape != (filters.get(key.removeprefix(PATIENCE)),):
                message = f"received {key} of shape {tuple(left.shape)}, which is of no convolution of this network"
                raise FedMEPDError(message, public=message)

    def give(self, network: FedMEPDNet, received: Tensors) -> Tensors:
        given = {}
        for key, value in super().give(network, parts(received, SEGMENTING)).items():
            rows = _shared_rows(key, received)
            given[key] = value if rows is None else value[rows]
        return given

    def personal_filters(self, received: Tensors) -> dict[str, int]:
        patience = parts(received, (PATIENCE,))
        return {key.removeprefix(PATIENCE): int((left == 0).sum()) for key, left in patience.items()}


def _shared_rows(key: str, received: Tensors) -> Tensor | None:
    """The filters with B = 1 in W_i = B_i W_s + (1 - B_i) W_i: those that have patience left."""
    patience = received.get(f"{PATIENCE}{layer_of(key)}") if key.startswith(DECODER) else None
    return None if patience is None else patience > 0


class FedMEPDAtFusionSite(AtFusionSite):
    """Makes the class anchors from its cases."""

    settings: FedMEPDSettings

    def __init__(self, settings: FedMEPDSettings, log: Log):
        super().__init__(settings, log)
        self.releases_vectors = settings.calibration.enabled

    def start(self, network: FedMEPDNet, data: SiteData) -> None:
        calibration = self.settings.calibration
        # With differential privacy, only means over all patients may decide anything: there is nothing to cluster.
        per_class, fewest = (
            (calibration.anchors_per_class, calibration.anchor_cases) if self.privacy is None else (1, 1)
        )
        self._patients = [case.patient for case in self.cases(data)]
        whose = self._patients if self.privacy is None else None
        self.anchors = Anchors(per_class, calibration.anchor_ema, self.settings.seed, fewest=fewest, patients=whose)
        classes, width = len(network.task.classes), network.width
        self._like = {level: torch.zeros(classes, channels(width, level)) for level in LEVELS}

    def train(self, training: RoundTraining, weights: Tensors, extras: Tensors) -> None:
        self._collector = CaseVectorCollector()
        self._seen = 1.0 if self.privacy is None else 1 - (1 - self.privacy.rate) ** training.planned
        training.run(**{"observe": self._collector.observe} if self.settings.calibration.enabled else {})

    def leave(self, round_number: int) -> Tensors:
        vectors = self._collector.vectors
        if self.privacy is not None and self.releases_vectors:
            vectors = {0: private_means(vectors, self._like, self._patients, self.privacy, self._seen)}
        self.anchors.update(vectors, round_number)
        if round_number == 0 and vectors:
            self._tell_of_missing_anchors()
        return {f"{ANCHORS}{level}": rows for level, rows in self.anchors.tensors().items()}

    def _tell_of_missing_anchors(self) -> None:
        counts = zip(find_task(self.settings.task).classes, self.anchors.of_classes(), strict=True)
        missing = [name for name, count in counts if not count]
        if missing:
            self.log(
                f"no anchors of {', '.join(missing)}: fewer patients of the fusion site's training showed it than "
                f"calibration.anchor_cases = {self.settings.calibration.anchor_cases}; the sites calibrate without them"
            )

    def state(self) -> dict[str, Any]:
        return self.anchors.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.anchors.restore(state)


METHOD = Method(
    name="fedmepd",
    title="FedMEPD",
    paper="Liu et al., Medical Image Analysis 2025",
    shared="encoders, decoder filters that are not personal, class anchors",
    personal="decoder filters whose changes keep opposing the global ones, calibration",
    fusion="trains the averaged network in every round and makes the anchors",
    model="encoders and shared decoder filters averaged with other sites' and trained at the fusion site, personal "
    "filters trained here alone",
    global_model="encoders and decoder filters averaged over the sites and trained at the fusion site; no personal "
    "filters and no calibration",
    at_server=FedMEPDAtServer,
    at_site=FedMEPDAtSite,
    at_fusion_site=FedMEPDAtFusionSite,
    settings=FedMEPDSettings,
    private=True,
)
