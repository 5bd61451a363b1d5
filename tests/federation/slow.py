"""A FedMEPD federation written down from algorithm section 3 with plain loops over sites, weights and filters.

Only network, loss and batches are the package's own; their own tests compare them with other references.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch

from fedmepd.config import Settings
from fedmepd.data.batches import Batch, TrainingBatches
from fedmepd.data.site import SiteData
from fedmepd.networks.network import FedMEPDNet, Outputs
from fedmepd.seeds import derive_seed
from fedmepd.tasks.brats import BRATS
from fedmepd.training.losses import training_loss

State = dict[str, torch.Tensor]


class Party:
    """A site, or the fusion site: a network, Adam and data.

    Args:
        settings: of the job.
        data: its cases.
        calibration: keyword arguments of the calibration, or None.
    """

    def __init__(self, settings: Settings, data: SiteData, calibration: dict | None = None):
        self.settings, self.data = settings, data
        network = settings.network
        kind = network.model_dump(include={"shared_encoder", "affine", "modality_norms"})
        self.network = FedMEPDNet(BRATS, data.modalities, network.width, calibration=calibration, **kind)
        self.network.start(settings.seed)
        training = settings.training
        self.adam = torch.optim.Adam(
            self.network.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.batches = TrainingBatches(data.train, settings, (data.name,), data.cache)

    def state(self) -> State:
        return {key: value.detach().clone() for key, value in self.network.state_dict().items()}

    def load(self, state: State) -> None:
        self.network.load_state_dict(self.state() | state)

    def rate(self, number: int, last: int) -> float:
        """Learning rate of a round of a decay that ends after a last one."""
        training = self.settings.training
        return training.learning_rate * (1 - number / (last + 1)) ** training.decay_power

    def go_on_from(self, kept: dict) -> None:
        """Takes over a kept state, so that the rounding errors of the rounds before do not add up."""
        self.load(dict(kept["network"]))
        self.adam.load_state_dict(kept["optimizer"])

    def train(
        self,
        number: int,
        rate: float | None = None,
        change_gradients: Callable[[FedMEPDNet], None] = lambda network: None,
        choose: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda modalities: modalities,
        watch: Callable[[Batch, Outputs], None] = lambda batch, outputs: None,
    ) -> None:
        """One epoch.

        ``change_gradients`` sees the network before each step of Adam; ``choose`` leaves out modalities; ``watch`` sees
        what each step has computed.
        """
        self.adam.param_groups[0]["lr"] = self.rate(number, self.settings.rounds) if rate is None else rate
        torch.manual_seed(derive_seed(self.settings.seed, self.data.name, number))
        self.network.train()
        for batch in self.batches.epoch(number):
            chosen = choose(batch.modalities)
            images = batch.images[:, [batch.modalities.index(name) for name in chosen]]
            outputs = self.network.training_outputs(images, chosen)
            self.adam.zero_grad()
            training_loss(outputs, batch.label).total.backward()
            change_gradients(self.network)
            self.adam.step()
            watch(batch, outputs)


class SlowFedMEPD:
    """Sites, fusion site and the state of every filter; one anchor a class.

    Args:
        settings: of the job.
        fusion: the fusion site's data.
        sites: the sites' data.
    """

    def __init__(self, settings: Settings, fusion: SiteData, sites: list[SiteData]):
        self.settings = settings
        self.fusion = Party(settings, fusion)
        section = settings.calibration
        calibration = {"residual": section.residual, "dropout": section.dropout}
        self.sites = {data.name: Party(settings, data, calibration) for data in sites}
        filters = {
            key.removesuffix(".weight"): len(value)
            for key, value in self.fusion.state().items()
            if key.startswith("decoder.") and key.endswith(".weight")
        }
        patience = settings.personalization.patience
        self.patience = {name: {layer: [patience] * count for layer, count in filters.items()} for name in self.sites}
        self.h = {name: {layer: [1.0] * count for layer, count in filters.items()} for name in self.sites}
        self.anchors: dict[int, list[torch.Tensor]] = {}
        self._move_anchors(self._train_fusion(0), 0)
        self.server = self.fusion.state()

    def take_over(self, server: dict, sites: dict[str, dict]) -> None:
        """Goes on from kept states, so that the rounding errors of the rounds before do not add up."""
        self.server = {key: value.clone() for key, value in server["state"].items()}
        parties = [
            (self.fusion, self.server, server["fusion"]),
            *((self.sites[name], kept["network"], kept) for name, kept in sites.items()),
        ]
        for party, state, kept in parties:
            party.load(state)
            party.adam.load_state_dict(kept["optimizer"])
        for name, filters in server["personalization"].items():
            self.patience[name] = {layer: values.tolist() for layer, values in filters["patience"].items()}
            self.h[name] = {layer: values.tolist() for layer, values in filters["weights"].items()}
        for level in self.anchors:
            self.anchors[level] = list(server["anchors"][f"anchors.{level}"].clone())

    def round(self, number: int) -> None:
        """Rounds from 1 on."""
        before = copy.deepcopy(self.server)
        trained, started = {}, {}
        for name, site in self.sites.items():
            site.load(self._for_site(name, site))
            site.network.anchors = {level: torch.stack(rows) for level, rows in self.anchors.items()}
            started[name] = site.state()
            site.train(number)
            trained[name] = site.state()
        self.fusion.load(self._aggregate(trained))
        vectors = self._train_fusion(number)
        self.server = self.fusion.state()
        if number > self.settings.personalization.warmup_rounds:
            for name in self.sites:
                self._personalize(name, before, started[name], trained[name])
            self._bound_weights()
        self._move_anchors(vectors, number)

    def _train_fusion(self, number: int) -> dict[int, list[list[torch.Tensor | None]]]:
        """Returns by level the mean feature of each class in each case, None where it is absent."""
        vectors: dict[int, list[list[torch.Tensor | None]]] = {}

        def note(batch: Batch, outputs: Outputs) -> None:
            for level, feature in outputs.features.items():
                for axis in (2, 3, 4):
                    feature = feature.repeat_interleave(2 ** (level - 1), dim=axis)
                for place in range(len(batch.cases)):
                    by_class = [feature[place][:, batch.label[place] == k] for k in range(4)]
                    means = [inside.mean(dim=1).detach() if inside.numel() else None for inside in by_class]
                    vectors.setdefault(level, []).append(means)

        self.fusion.train(number, watch=note)
        return vectors

    def _for_site(self, name: str, site: Party) -> State:
        """Encoders of the site's modalities; W_i = B_i W_s + (1 - B_i) W_i."""
        own = site.state()
        for key, value in self.server.items():
            if key.startswith("encoders.") and key.split(".")[1] in site.data.modalities:
                own[key] = value.clone()
            elif key.startswith("decoder."):
                for j, left in enumerate(self.patience[name][key.rpartition(".")[0]]):
                    if left > 0:
                        own[key][j] = value[j]
        return own

    def _aggregate(self, trained: dict[str, State]) -> State:
        merged = copy.deepcopy(self.server)
        for key in merged:
            if key.startswith("encoders."):
                holders = [state[key] for state in trained.values() if key in state]
                if holders:
                    merged[key] = sum(holders) / len(holders)
            elif key.startswith("decoder."):
                layer = key.rpartition(".")[0]
                for j in range(len(merged[key])):
                    sharing = [name for name in trained if self.patience[name][layer][j] > 0]
                    if not sharing:
                        continue
                    total = sum(self.h[name][layer][j] for name in sharing)
                    local = sum(self.h[name][layer][j] * trained[name][key][j] for name in sharing) / total
                    share = self.settings.aggregation.server_share
                    merged[key][j] = share * self.server[key][j] + (1 - share) * local
        return merged

    def _personalize(self, name: str, before: State, started: State, trained: State) -> None:
        settings = self.settings.personalization
        cases = {site: len(party.data.train) for site, party in self.sites.items()}
        for layer, patience in self.patience[name].items():
            key = f"{layer}.weight"
            for j in range(len(patience)):
                if patience[j] == 0:
                    continue
                of_server = (self.server[key][j] - before[key][j]).flatten().double()
                of_site = (trained[key][j] - started[key][j]).flatten().double()
                product = float((of_server * of_site).sum())
                if product < 0:
                    patience[j] -= 1
                elif product > 0:
                    patience[j] = settings.patience
                ratio = math.sqrt(float((of_server**2).sum())) / math.sqrt(float((of_site**2).sum()))
                weight = ratio * cases[name] / sum(cases.values())
                h = settings.weight_ema * self.h[name][layer][j] + (1 - settings.weight_ema) * weight
                self.h[name][layer][j] = h if patience[j] > 0 else 0.0

    def _bound_weights(self) -> None:
        """No site's weight of a filter is above a few times the median site's, of two middle ones the lower."""
        bound = self.settings.personalization.weight_bound
        for layer in next(iter(self.h.values())):
            for j in range(len(next(iter(self.h.values()))[layer])):
                sharing = sorted(self.h[name][layer][j] for name in self.h if self.patience[name][layer][j] > 0)
                if sharing and bound:
                    limit = bound * sharing[(len(sharing) - 1) // 2]
                    for name in self.h:
                        self.h[name][layer][j] = min(self.h[name][layer][j], limit)

    def _move_anchors(self, vectors: dict[int, list[list[torch.Tensor | None]]], number: int) -> None:
        keep = self.settings.calibration.anchor_ema if number > 1 else 0.0
        for level, cases in vectors.items():
            rows = self.anchors.setdefault(level, [None] * 4)
            for k in range(4):
                held = [case[k] for case in cases if case[k] is not None]
                if held:
                    mean = sum(held) / len(held)
                    rows[k] = mean if rows[k] is None else keep * rows[k] + (1 - keep) * mean
