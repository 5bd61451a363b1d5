"""The federation's server: global model, anchors and every site's personalization state (algorithm section 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.site import SiteData
from fedmepd.errors import CheckpointError, FedMEPDError, UpdateRefused
from fedmepd.evaluation import results
from fedmepd.evaluation.model_card import write_model_card
from fedmepd.federation.aggregation import Aggregation, encoder_of
from fedmepd.federation.anchors import Anchors
from fedmepd.federation.checking import check_update
from fedmepd.federation.cross_site import SERVER, CrossSiteTest, copy_of, test_copy
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.federation.filters import DECODER, Personalization, decoder_layers, layer_of, personal_shares_by_layer
from fedmepd.federation.methods import METHODS
from fedmepd.federation.norm_bound import NormBound, Size, scaled, size_of
from fedmepd.federation.records import Records
from fedmepd.federation.reports import TestReport, TrainReport, check_report
from fedmepd.federation.site import validation_is_due
from fedmepd.federation.timing import SITES, RoundSeconds, Timing, figures_of
from fedmepd.networks.network import SHARED, FedMEPDNet
from fedmepd.storage import load_tensors, remove_leftovers, save_tensors
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.checkpoints import About, describe, load_model, save_model
from fedmepd.training.fusion import FusionResult, FusionTrainer
from fedmepd.training.memory import give_back

STATE = "server_state.pt"
# To be raised by whoever changes what the state holds.
STATE_FORMAT = 4
GLOBAL_BEST = "global_best.pt"
GLOBAL_LAST = "global_last.pt"


class FederationServer:
    """Runs the rounds: sends, takes in, aggregates, trains at the fusion site, personalizes, keeps everything.

    Its whole state is on disk after every round; a new object on the same folder goes on from there with the same bits.

    Args:
        settings: of the job.
        data: of the fusion site.
        folder: for the state of this run.
        results_folder: for results.json and results.md.
        device: for the fusion training.
        log: takes lines about the progress.
        timing: runs since the job's start; None: from now on.
    """

    def __init__(
        self,
        settings: Settings,
        data: SiteData,
        folder: Path,
        results_folder: Path,
        device: torch.device,
        log: Callable[[str], None] = lambda line: None,
        timing: Timing | None = None,
    ):
        self.timing = timing or Timing()
        self.settings = settings
        self.data = data
        self.folder = Path(folder)
        self.results_folder = Path(results_folder)
        self.log = log
        self.method = METHODS[settings.method]
        self.round = -1
        self.finished = False
        self.profiles: dict[str, SiteProfile] = {}
        self._fusion = FusionTrainer(settings, data, device)
        self._state = self._fusion.state()
        self._layers = decoder_layers(self._state)
        calibrates = self.method.personalizes and settings.calibration.enabled
        self._anchors = _anchors(settings) if calibrates else None
        self._personalization: dict[str, Personalization] = {}
        self._records = Records()
        self._records.join(FUSION_SITE, 0)
        self._bound = NormBound(settings.aggregation.norm_bound)
        self._best: float | None = None
        self._cross_site_test: CrossSiteTest | None = None
        self._cross_site: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._aggregation: Aggregation | None = None
        self._sent: set[str] = set()
        self._reports: dict[str, dict[str, Any]] = {}
        self._wire_bytes: dict[str, tuple[int, int]] = {}
        self._sizes: dict[str, Size] = {}
        self._missed: dict[str, str] = {}
        self._live: dict[str, Any] = {"phase": "preparing"}

    def register(self, profile: SiteProfile) -> None:
        """Lets a site take part, from the next round on.

        Raises:
            FedMEPDError: it uses phantoms while others use patients' images, or the other way round; or it has the name
                of the fusion site, and so its data folder.
        """
        if profile.name == FUSION_SITE:
            raise FedMEPDError(f"a site is named {FUSION_SITE!r}, which is the fusion site's name: rename the site")
        if profile.source != self.data.source:
            kinds = {"phantom": "the phantom cohort", "folder": "a data folder"}
            raise FedMEPDError(
                f"{profile.name} uses {kinds[profile.source]}, the fusion site {kinds[self.data.source]}: set "
                "FEDMEPD_DATA everywhere or nowhere"
            )
        self.profiles[profile.name] = profile
        self._records.join(profile.name, self.round + 1 if self.round > 0 else 1)
        if self.method.personalizes and profile.name not in self._personalization:
            self._personalization[profile.name] = self._new_personalization()

    def _new_personalization(self) -> Personalization:
        settings = self.settings.personalization
        return Personalization(self._layers, settings.patience, settings.weight_ema)

    def start(self, abort: Callable[[], bool]) -> None:
        """Round 0: fusion training from the initial weights, and the first anchors. Nothing when resumed."""
        if self.round >= 0:
            return
        use_threads(self.settings.training.fusion_threads)
        if self.method.fusion != "among":
            steps = len(self._fusion.batches) * self.settings.training.fusion_epochs
            self.log(f"round 0: {steps} steps at the fusion site before the sites begin")
            result = self._train_fusion(0, self._state, abort)
            self._state = result.state
            self.timing.enter("aggregation")
            self._records.train(FUSION_SITE, 0, result.losses)
            if self._anchors is not None:
                self._anchors.update(result.vectors, 0)
                self._tell_of_missing_anchors()
        self.round = 0
        self._keep_round()

    def _tell_of_missing_anchors(self) -> None:
        names = [
            name for name, count in zip(self.data.task.classes, self._anchors.of_classes(), strict=False) if not count
        ]
        if names:
            self.log(
                f"no anchors of {', '.join(names)}: fewer than calibration.anchor_cases = "
                f"{self.settings.calibration.anchor_cases} training cases of the fusion site held the class; the sites "
                "calibrate without them"
            )

    def payload(self, site: str) -> Payload:
        """What the site is sent for the next round: its encoders, the filters that it shares, anchors, its patience."""
        payload = self._payload(site)
        with self._lock:
            self._sent.add(site)
        self.timing.handed_out(site)
        return payload

    def _payload(self, site: str) -> Payload:
        payload = Payload(self.round + 1)
        # Where the sites do not train, they need the weights only to validate them.
        if self.method.sites_train or validation_is_due(self.settings, payload.round):
            payload.tensors = self._tensors_for(site)
        return payload

    def _tensors_for(self, site: str) -> dict[str, Tensor]:
        modalities = self.profiles[site].modalities
        personal = self._personalization.get(site)
        tensors: dict[str, Tensor] = {}
        for key, value in self._state.items():
            encoder = encoder_of(key)
            if key.split(".")[0] not in self.method.sends or (encoder and encoder not in (*modalities, SHARED)):
                continue
            if personal is not None and key.startswith(DECODER):
                shared = personal.shared(layer_of(key))
                # As long as a site shares all filters, it needs no copy of its own.
                value = value if shared.all() else value[shared]
            if len(value):
                tensors[key] = value
        if personal is not None:
            tensors |= {f"patience.{layer}": values.clone() for layer, values in personal.patience.items()}
        if self._anchors is not None:
            tensors |= {f"anchors.{level}": rows for level, rows in self._anchors.tensors().items()}
        return tensors

    def begin_round(self) -> None:
        """Opens the next round for updates."""
        keys = [key for key in self._state if key.split(".")[0] in self.method.returns]
        share = 0.0 if self.method.by_cases else self.settings.aggregation.server_share
        with self._lock:
            self._aggregation = Aggregation(self._state, keys, share)
            self._sent, self._reports = set(), {}
            self._wire_bytes, self._sizes, self._missed = {}, {}, {}
        self._live = {"phase": "sites train", "round": self.round + 1}
        self.timing.enter(SITES)

    def miss(self, site: str, reason: str) -> None:
        """Notes why the open round goes on without a site, for the results.

        Args:
            site: its name.
            reason: without names of cases and paths.
        """
        with self._lock:
            self._missed.setdefault(site, reason)

    def delivered(self) -> int:
        """How many updates the open round has taken."""
        return len(self._reports)

    def accept(self, site: str, update: Update, wire_bytes: tuple[int, int] = (0, 0)) -> None:
        """Takes a site's update into the round; any thread, any order.

        Args:
            site: its name.
            update: what it returned.
            wire_bytes: of tensors, up and down.

        Raises:
            UpdateRefused: it does not fit what was sent; the round goes on without it.
        """
        came = self.timing.now()
        with self._lock:
            if self._aggregation is None or site not in self._sent:
                raise UpdateRefused(f"update of {site} for round {update.round} refused: no round waits for it")
            if site in self._reports:
                raise UpdateRefused(f"update of {site} for round {update.round} refused: one is in already")
            try:
                # What was sent is made again, since keeping it would take memory for every site.
                check_update(self.profiles[site], self._payload(site), update, self.method.returns)
                report = check_report(site, TrainReport, update.report, self.data.task)
            except UpdateRefused as error:
                self._missed.setdefault(site, str(error))
                raise
            if update.tensors and self._bound.waits:
                save_tensors(self._file("waiting", site), update.tensors)
                self._sizes[site] = Size(size_of(update.tensors))
            elif update.tensors:
                self._add(site, update.tensors, report["cases"], self._bound.judge(size_of(update.tensors)))
            self._reports[site] = report
            self._wire_bytes[site] = wire_bytes
            self.timing.took_in(site, came, report)

    def _add(self, site: str, changes: dict[str, Tensor], cases: int, size: Size) -> None:
        round_number = self.round + 1
        self._sizes[site] = size
        if size.factor < 1:
            self.log(
                f"round {round_number}: the update of {site} is scaled down to the median site's size: it was "
                f"{size.own / size.median:.3g} times as large, aggregation.norm_bound is {self._bound.bound:g}"
            )
            changes = scaled(changes, size.factor)
        if self._compares(round_number):
            save_tensors(
                self._file("changes", site), {key: value for key, value in changes.items() if key.startswith(DECODER)}
            )
        personal = self._personalization.get(site)
        for key, change in changes.items():
            if self.method.by_cases:
                self._aggregation.add(key, change, float(cases))
            elif key.startswith(DECODER):
                shared = personal.shared(layer_of(key))
                self._aggregation.add(key, change, personal.weights[layer_of(key)][shared], shared)
            else:
                self._aggregation.add(key, change, 1.0)

    def _add_waiting(self) -> None:
        """Adds the updates that waited for the median of their round."""
        if not self._bound.waits:
            return
        self._bound.set_median(size.own for size in self._sizes.values())
        for site, size in sorted(self._sizes.items()):
            # From disk, one site at a time: memory does not grow with their number.
            path = self._file("waiting", site)
            self._add(site, load_tensors(path), self._reports[site]["cases"], self._bound.judge(size.own))
            path.unlink()

    def _compares(self, round_number: int) -> bool:
        """Whether this round counts for the personalization."""
        settings = self.settings.personalization
        return self.method.personalizes and bool(settings.patience) and round_number > settings.warmup_rounds

    def _file(self, kind: str, site: str) -> Path:
        return self.folder / kind / f"{site}.pt"

    def finish_round(self, abort: Callable[[], bool]) -> dict[str, float]:
        """Aggregates, trains at the fusion site, personalizes, moves the anchors, validates, keeps the state.

        Returns:
            the round's figures for TensorBoard, by tag.

        Raises:
            Aborted: ``abort`` said so; the state on disk is that of the round before.
            FedMEPDError: fewer sites than ``aggregation.min_sites`` took part.
        """
        round_number = self.round + 1
        use_threads(self.settings.training.fusion_threads)
        self.timing.enter("aggregation")
        if len(self._reports) < self.settings.aggregation.min_sites:
            raise FedMEPDError(
                f"round {round_number}: {len(self._reports)} of {len(self._sent)} sites delivered, "
                f"aggregation.min_sites is {self.settings.aggregation.min_sites}; the log says what kept the others"
            )
        with self._lock:
            self._add_waiting()
            aggregation, self._aggregation = self._aggregation, None
        self._bound.set_median(size.own for size in self._sizes.values())
        before = self._state
        result = self._merge_and_train(round_number, aggregation, abort)
        if self._compares(round_number):
            self._personalize(before)
        if self._anchors is not None:
            self._anchors.update(result.vectors, round_number)
        self.round = round_number
        figures = self._record(round_number, result, abort)
        seconds = self._keep_round()
        give_back()
        return figures | figures_of(seconds)

    def _merge_and_train(self, round_number: int, aggregation: Aggregation, abort: Callable[[], bool]) -> FusionResult:
        if self.method.fusion == "among":
            result = self._train_fusion(round_number, self._state, abort)
            for key, value in result.state.items():
                aggregation.add(key, value - self._state[key], float(self._fusion.cases))
            self._state = aggregation.result()
        else:
            merged = aggregation.result() if self.method.returns else self._state
            result = self._train_fusion(round_number, merged, abort)
            self._state = result.state
        return result

    def _train_fusion(self, round_number: int, state: dict[str, Tensor], abort: Callable[[], bool]) -> FusionResult:
        # The fusion site keeps its own auxiliary decoder where the method does not exchange it.
        steps = len(self._fusion.batches) * self.settings.training.fusion_epochs

        def progress(step: int, loss: float) -> None:
            self._live = {"phase": "fusion training", "round": round_number, "step": step, "steps": steps, "loss": loss}

        with self.timing.during("fusion_training"):
            return self._fusion.train(
                state,
                round_number,
                vectors=self._anchors is not None,
                modality_dropout=self.method.drops_modalities and self.settings.training.modality_dropout,
                abort=abort,
                progress=progress,
            )

    def _personalize(self, before: dict[str, Tensor]) -> None:
        cases = {site: report["cases"] for site, report in self._reports.items()}
        total = max(1, sum(cases.values()))
        for site in sorted(cases):
            # From disk, one site at a time: memory does not grow with their number.
            changes = load_tensors(self._file("changes", site))
            for layer in self._layers:
                change = changes.get(f"{layer}.weight")
                if change is not None:
                    key = f"{layer}.weight"
                    self._personalization[site].update(
                        layer, self._state[key] - before[key], change, cases[site] / total
                    )
            self._file("changes", site).unlink()

    def _record(self, round_number: int, result: FusionResult, abort: Callable[[], bool]) -> dict[str, float]:
        """Notes the round in the sites' records; returns its figures."""
        figures = {f"server/loss_{name}": value for name, value in result.losses.items()}
        self._records.train(FUSION_SITE, round_number, result.losses)
        figures["federation/sites"] = float(len(self._reports))
        for site, report in sorted(self._reports.items()):
            self._records.take(site, round_number, report, self._sizes.get(site), self._wire_bytes[site])
            up, down = self._wire_bytes[site]
            figures |= {f"{site}/loss_{name}": value for name, value in report["losses"].items()}
            figures |= {
                f"{site}/seconds": report["seconds"],
                f"{site}/bytes_up": float(up),
                f"{site}/bytes_down": float(down),
            }
            if report["validation"]:
                figures |= _score_figures(site, report["validation"])
        for site in sorted(set(self.profiles) - set(self._reports)):
            absent = "no answer in time" if site in self._sent else "not connected"
            self._records.miss(site, round_number, self._missed.get(site, absent))
        for site, personal in self._personalization.items():
            self._records.personal(site, round_number, personal.personal_filters())
            if site in self._reports:
                figures[f"{site}/personal_share"] = personal.personal_share()
        for layer, share in personal_shares_by_layer(self._personalization.values()).items():
            figures[f"personal_share/{layer.removeprefix(DECODER)}"] = share
        if self._personalization:
            figures["federation/personal_share"] = self._mean_personal_share()
        if self.data.validation and validation_is_due(self.settings, round_number):
            self._live = {"phase": "validating", "round": round_number}
            with self.timing.during("fusion_evaluation"):
                figures |= self._validate(round_number, abort)
        return figures

    def _mean_personal_share(self) -> float:
        shares = [site.personal_share() for site in self._personalization.values()]
        return sum(shares) / len(shares)

    def _validate(self, round_number: int, abort: Callable[[], bool]) -> dict[str, float]:
        network = self._global_network()
        scores = score_cases(
            network, self.data.validation, self.settings, self.data.cache, distances=False, abort=abort
        )
        validation = {"round": round_number, "dice": scores["dice"], "mdsc": scores["mdsc"]}
        self._records.validate(FUSION_SITE, validation)
        if self._best is None or scores["mdsc"] > self._best:
            self._best = scores["mdsc"]
            save_model(self.folder / GLOBAL_BEST, network, self._about(round_number))
            self._write_card(self.folder / GLOBAL_BEST, round_number, validation)
        return _score_figures("server", validation)

    def _global_network(self):
        network = self._fusion.network
        network.load_state_dict(self._state)
        network.anchors = {} if self._anchors is None else self._anchors.tensors()
        return network

    def _about(self, round_number: int) -> About:
        return About.of(FUSION_SITE, self.settings, round_number, self._records[FUSION_SITE]["validation"])

    def _write_card(self, model: Path, round_number: int, validation: dict | None, test: dict | None = None) -> None:
        write_model_card(
            model,
            owner="server",
            settings=self.settings,
            modalities=self.data.modalities,
            cases=self.data.counts(),
            source=self.data.source,
            round_number=round_number,
            validation=validation,
            test=test,
        )

    def test_payload(self, site: str) -> Payload:
        """Sent with the final test: nothing, since every site tests the model that it keeps."""
        return Payload(self.round)

    def accept_test(self, site: str, report: dict[str, Any]) -> None:
        """Takes a site's test scores.

        Raises:
            UpdateRefused: the report is not what a site's test returns.
        """
        self._records[site]["test"] = check_report(site, TestReport, report, self.data.task)["test"]

    def miss_test(self, site: str, reason: str) -> None:
        """Notes why a site's model is not tested."""
        self._records[site]["untested"] = reason

    def begin_cross_site(self) -> CrossSiteTest:
        """Opens the test of every model on every site's test cases; :meth:`finish` closes it."""
        # What a profile says of the fusion site: it has agreed by running the job.
        own = SiteProfile(FUSION_SITE, self.data.modalities, self.data.counts(), self.data.source, "share")
        self._cross_site_test = CrossSiteTest(self.profiles, own, self.data.task)
        return self._cross_site_test

    def global_copy(self) -> ModelCopy:
        """The global model that is tested, for the sites to test too."""
        return copy_of(load_model(self._tested()))

    def test_model(self, model: str, network: FedMEPDNet, abort: Callable[[], bool]) -> None:
        """Tests a site's model on the fusion site's test cases, unless that makes no sense."""
        self._live = {"phase": "testing across sites", "round": self.round, "model": model}
        if SERVER in self._cross_site_test.targets(model):
            use_threads(self.settings.training.fusion_threads)
            report = test_copy(network.to(self._fusion.device), self.data, self.settings, abort)
            self._cross_site_test.accept(model, SERVER, report)

    def _tested(self) -> Path:
        """The file of the global model that was best on validation; without validation cases, of the last one."""
        save_model(self.folder / GLOBAL_LAST, self._global_network(), self._about(self.round))
        best = self.folder / GLOBAL_BEST
        return best if best.is_file() else self.folder / GLOBAL_LAST

    def finish(self, abort: Callable[[], bool]) -> dict[str, Any]:
        """Tests the global model that was best on validation, and writes the results."""
        if not self.finished:
            use_threads(self.settings.training.fusion_threads)
            self._live = {"phase": "testing", "round": self.round}
            tested = self._tested()
            network = load_model(tested)
            network.to(self._fusion.device)
            self._records[FUSION_SITE]["test"] = score_cases(
                network, self.data.test, self.settings, self.data.cache, distances=True, abort=abort
            )
            about = describe(tested)["about"]
            self._write_card(tested, about["round"], about["scores"], self._records[FUSION_SITE]["test"])
            if self._cross_site_test is not None:
                self._cross_site = self._cross_site_test.result(
                    {SERVER: self._records[FUSION_SITE]} | {site: self._records[site] for site in self.profiles}
                )
            self.finished = True
            self.timing.end_testing()
            self._keep()
        self._live = {"phase": "finished", "round": self.round}
        return self._write_results()

    def stats(self) -> dict[str, Any]:
        """Live state for the admin console: phase, round, sites that are in and missing, scores, personal share."""
        waiting = sorted(self._sent - set(self._reports))
        stats = {
            "round": self.round,
            "rounds": self.settings.rounds,
            **self._live,
            "sites_in": sorted(self._reports),
            "sites_missing": waiting if self._aggregation is not None else [],
            "mdsc": {
                site: self._records[site]["validation"]["mdsc"]
                for site in self._records
                if self._records[site]["validation"]
            },
        }
        if self._personalization:
            stats["personal_share"] = round(self._mean_personal_share(), 4)
        return stats

    def _keep_round(self) -> RoundSeconds:
        self.timing.enter("saving")
        self.timing.name_round(self.round)
        self._keep()
        return self.timing.end_round()

    def _keep(self) -> None:
        save_tensors(
            self.folder / STATE,
            {
                "format": STATE_FORMAT,
                "settings": self.settings.model_dump(mode="json"),
                "round": self.round,
                "finished": self.finished,
                "state": self._state,
                "optimizer": self._fusion.optimizer.state_dict(),
                "anchors": None if self._anchors is None else self._anchors.state(),
                "personalization": self._personalization_state(),
                "profiles": {site: profile.to_json() for site, profile in self.profiles.items()},
                "records": self._records.state(),
                "median": self._bound.median,
                "best": self._best,
                "timing": self.timing.state(),
                "cross_site": self._cross_site,
            },
        )
        self._write_results()

    def restore(self) -> None:
        """Goes on from the state in the folder, if there is one.

        Raises:
            CheckpointError: it cannot be read, or was written by another version or with other settings.
        """
        path = self.folder / STATE
        remove_leftovers(self.folder)
        if not path.is_file():
            return
        content = load_tensors(path)
        if content.get("format") != STATE_FORMAT:
            raise CheckpointError(
                f"{path} was written by another version of fedmepd, which keeps its state differently: go on with that "
                "version, or choose another run name"
            )
        self._check_settings(path, content["settings"])
        self.round, self.finished = content["round"], content["finished"]
        self._state = content["state"]
        self._fusion.optimizer.load_state_dict(content["optimizer"])
        if self._anchors is not None and content["anchors"]["filled"] is not None:
            self._anchors.restore(content["anchors"])
        self.profiles = {site: SiteProfile.from_json(profile) for site, profile in content["profiles"].items()}
        self._restore_personalization(content["personalization"])
        self._records.restore(content["records"])
        self._best, self._bound.median = content["best"], content["median"]
        self.timing.restore(content["timing"])
        self._cross_site = content["cross_site"]

    def _personalization_state(self) -> dict[str, Any]:
        """Patience and weights by convolution, (sites, filters): one tensor a site would be thousands to write."""
        states = [personalization.state() for personalization in self._personalization.values()]
        stacked = {
            kind: {layer: torch.stack([state[kind][layer] for state in states]) for layer in self._layers}
            for kind in (states[0] if states else ())
        }
        return {"sites": list(self._personalization), "state": stacked}

    def _restore_personalization(self, kept: dict[str, Any]) -> None:
        for place, site in enumerate(kept["sites"]):
            self._personalization[site] = self._new_personalization()
            self._personalization[site].restore(
                {
                    kind: {layer: rows[place].clone() for layer, rows in layers.items()}
                    for kind, layers in kept["state"].items()
                }
            )

    def _check_settings(self, path: Path, kept: dict[str, Any]) -> None:
        ours = _flat(self.settings.model_dump(mode="json"))
        different = [
            f"{key} was {value!r}, now {ours.get(key)!r}"
            for key, value in _flat(kept).items()
            if ours.get(key) != value
        ]
        if different:
            raise CheckpointError(
                f"run {self.settings.run_name!r} was started with other settings ({path}): {'; '.join(different)}. "
                "Start it with the same settings, or under another run_name."
            )

    def _write_results(self) -> dict[str, Any]:
        written = self.results()
        results.write(self.results_folder, written, self.histories())
        return written

    def histories(self) -> dict[str, Any]:
        """The curves of the server and of every site, see :class:`~fedmepd.federation.records.Records`."""
        histories = {SERVER: self._records[FUSION_SITE]["history"]}
        return histories | {name: self._records[name]["history"] for name in self.profiles}

    def results(self) -> dict[str, Any]:
        """The results so far, see :func:`fedmepd.evaluation.results.build`."""
        sites = [
            results.site_entry(
                name,
                profile.modalities,
                profile.cases,
                self._records[name],
                personal_share=self._personalization[name].personal_share() if name in self._personalization else None,
            )
            for name, profile in self.profiles.items()
        ]
        return results.build(
            self.settings,
            status="finished" if self.finished else "running",
            round=self.round,
            seconds=self.timing.total(),
            timing=self.timing.summary(),
            server=results.site_entry(SERVER, self.data.modalities, self.data.counts(), self._records[FUSION_SITE]),
            sites=sites,
            filters={layer.removeprefix(DECODER): count for layer, count in self._layers.items()}
            if self.method.personalizes
            else {},
            cross_site=self._cross_site,
        )


def _anchors(settings: Settings) -> Anchors:
    calibration = settings.calibration
    return Anchors(
        calibration.anchors_per_class, calibration.anchor_ema, settings.seed, fewest=calibration.anchor_cases
    )


def _score_figures(owner: str, validation: dict[str, Any]) -> dict[str, float]:
    figures = {f"{owner}/validation_dice_{region}": value for region, value in validation["dice"].items()}
    figures[f"{owner}/validation_mdsc"] = validation["mdsc"]
    return figures


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
