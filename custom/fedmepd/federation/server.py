"""The federation's server: a round from the first payload to the kept state (algorithm section 3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedmepd import methods
from fedmepd.config import FUSION_SITE, Settings
from fedmepd.disclosure import Withheld, reason_of
from fedmepd.environment import hardware
from fedmepd.errors import FedMEPDError, FusionAway, UpdateRefused
from fedmepd.evaluation import results
from fedmepd.federation.checking import check_extras
from fedmepd.federation.cross_site import SERVER, CrossSiteTest
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.federation.fusion_site import Abort, Fusion
from fedmepd.federation.global_model import GlobalModel
from fedmepd.federation.norm_bound import NormBound
from fedmepd.federation.open_round import OpenRound, TensorStore
from fedmepd.federation.records import Records
from fedmepd.federation.reports import TestReport, check_cases, check_report
from fedmepd.federation.round_figures import (
    mean_personal_share,
    note_filters,
    note_fusion,
    note_method,
    note_sites,
    personal_share,
    score_figures,
    summary,
)
from fedmepd.federation.server_state import ServerState
from fedmepd.federation.timing import SITES, RoundSeconds, Timing, figures_of
from fedmepd.methods.method import Fused, Tensors
from fedmepd.methods.parts.selection import DECODER, EXTRA, parts
from fedmepd.tasks.find import find_task
from fedmepd.text_table import counted
from fedmepd.training.arithmetic import chosen_precision, device_name
from fedmepd.training.memory import give_back


class FederationServer:
    """Runs the rounds: sends, takes in, has the method aggregate and the fusion site train, validates, keeps the state.

    Its whole state is on disk after every round; a new object on the same folder goes on from there with the same bits.

    Args:
        settings: of the job.
        fusion: the fusion site, here or elsewhere.
        folder: for the state of this run.
        results_folder: for results.json and results.md.
        download_folder: for copies of the global model and its card; None: without.
        log: takes lines about the progress.
        timing: runs since the job's start; None: from now on.

    Attributes:
        round: the last finished round; -1 before round 0.
        finished: whether everything is tested.
        profiles: the sites that take part.
        last_round: about the last finished round, for progress lines and the admin console.
    """

    def __init__(
        self,
        settings: Settings,
        fusion: Fusion,
        folder: Path,
        results_folder: Path,
        log: Callable[[str], None] = lambda line: None,
        timing: Timing | None = None,
        download_folder: Path | None = None,
    ):
        self.timing = timing or Timing()
        self.settings = settings
        self.results_folder = Path(results_folder)
        self.log = log
        self.round = -1
        self.finished = False
        self.profiles: dict[str, SiteProfile] = {}
        self.last_round: dict[str, Any] | None = None
        folder = Path(folder)
        self._fusion = fusion
        self._task = find_task(settings.task)
        self._records = Records()
        self._model = GlobalModel(settings, fusion, folder, self._records.privacy)
        self._download_folder = download_folder
        self._changes, self._waiting = TensorStore(folder / "changes"), TensorStore(folder / "waiting")
        self._method = methods.find(settings.method).at_server(settings, self._model.start(), self._changes)
        self._records.join(FUSION_SITE, 0)
        self._bound = NormBound(settings.aggregation.norm_bound)
        self._extras_bound = NormBound(settings.aggregation.norm_bound, by_filter=False)
        self._state = ServerState(folder, settings)
        self._cross_site_test: CrossSiteTest | None = None
        self._cross_site: dict[str, Any] | None = None
        self._open: OpenRound | None = None
        self._fusion_missed = False
        # Why sites take no part.
        self._left_out: dict[str, str] = {}
        # Why sites train no further.
        self._spent: dict[str, str] = {}
        self._live: dict[str, Any] = {"phase": "preparing"}

    # Before the rounds

    def register(self, profile: SiteProfile) -> None:
        """Lets a site take part, from the next round on.

        Raises:
            FedMEPDError: it uses phantoms while others use patients' images, or the other way round; or it has a name
                of the fusion site, and so its data folder or its place in the results; or the fusion site refuses it
                (:meth:`~fedmepd.federation.fusion_site.Fusion.join`).
        """
        if profile.name in (FUSION_SITE, SERVER):
            # In results and curves the one that comes last would have the other's place.
            reason = f"a site is named {profile.name!r}, which is the fusion site's name: rename the site"
            raise FedMEPDError(reason, public=reason)
        if profile.source != self._fusion.profile.source:
            kinds = {"phantom": "the phantom cohort", "folder": "a data folder"}
            reason = (
                f"{profile.name} uses {kinds[profile.source]}, the fusion site {kinds[self._fusion.profile.source]}: "
                "set FEDMEPD_DATA everywhere or nowhere"
            )
            raise FedMEPDError(reason, public=reason)
        self._fusion.join(profile)
        self._left_out.pop(profile.name, None)
        if not profile.takes_part():
            return
        self.profiles[profile.name] = profile
        self._records.join(profile.name, self.round + 1 if self.round > 0 else 1)
        # With a new login it may have a larger budget.
        self._records.train_again(profile.name)
        self._method.join(profile.name, profile.modalities)

    def leave_out(self, site: str, reason: str) -> None:
        """Notes why a site takes no part in the run, or no further part, for the results. It may register later.

        Args:
            site: its name.
            reason: without names of cases and paths.
        """
        self._left_out[site] = reason

    def start(self, abort: Abort) -> None:
        """Round 0: fusion training from the initial weights, and the first anchors. Nothing when resumed.

        Raises:
            FusionAway: the fusion site is not there; without it there is nothing to begin with.
            Aborted: ``abort`` said so.
        """
        if self.round >= 0:
            return
        fused = self._method.begin(partial(self._fuse, abort))
        self.timing.enter("aggregation")
        note_fusion(self._records, 0, fused, self._fusion.spent())
        self.round = 0
        self._keep_round()

    # A round

    def begin_round(self) -> None:
        """Opens the next round for updates."""
        number = self.round + 1
        bounds = self._bound, self._extras_bound
        self._open = OpenRound(number, self._method, self._task, *bounds, self._waiting, self.log)
        for site in self.profiles:
            if site in self._left_out:
                self._open.miss(site, self._left_out[site])
            elif not self.trains(site):
                # It ended before this server was started, and is away.
                self._open.miss(site, self._spent.get(site, "its privacy budget is spent"))
        self._live = {"phase": "sites train", "round": number}
        self.timing.enter(SITES)

    def payload(self, site: str) -> Payload:
        """What the site is sent in the open round."""
        payload = Payload(self._open.number, self._method.send(site))
        self._open.hand_out(site)
        self.timing.handed_out(site)
        return payload

    def miss(self, site: str, reason: str) -> None:
        """Notes why the open round goes on without a site, for the results.

        Args:
            site: its name.
            reason: without names of cases and paths.
        """
        self._open.miss(site, reason)

    def end_training(self, site: str, reason: str, spent: dict[str, Any]) -> None:
        """Notes that a site's privacy budget is spent. Until it logs in again, it is asked for nothing but tests.

        Args:
            site: its name.
            reason: without names of cases and paths.
            spent: a checked :class:`~fedmepd.federation.reports.SpentPrivacy`.
        """
        self._spent[site] = reason
        self._records.end_training(site, self._open.number, spent)
        self._open.miss(site, reason)

    def trains(self, site: str) -> bool:
        """Whether a site that takes part still trains."""
        return self._records.ended(site) is None

    @property
    def training_over(self) -> bool:
        """Whether no round can follow, since too few sites are left that may still train."""
        training = sum(map(self.trains, self.profiles))
        return training < min(len(self.profiles), self.settings.aggregation.min_sites)

    def delivered(self) -> int:
        """How many updates the open round has taken."""
        return len(self._open.reports)

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
        if self._open is None or site not in self.profiles:
            raise UpdateRefused(f"update of {site} for round {update.round} refused: no round waits for it")
        report = self._open.accept(self.profiles[site], update, wire_bytes)
        self.timing.took_in(site, came, report)

    def finish_round(self, abort: Abort) -> dict[str, float]:
        """Has the method close the round, validates, keeps the state.

        A round in which privacy budgets were spent, so that too few sites are left (:attr:`training_over`), does not
        count: everything is as after the round before.

        Returns:
            the round's figures for TensorBoard, by tag; none of a round that does not count.

        Raises:
            Aborted: ``abort`` said so; the state on disk is that of the round before.
            FedMEPDError: fewer sites than ``aggregation.min_sites`` took part.
        """
        open_round, number = self._open, self._open.number
        self.timing.enter("aggregation")
        if len(open_round.reports) < self.settings.aggregation.min_sites:
            if self.training_over:
                self._give_up_round()
                return {}
            raise FedMEPDError(
                f"round {number}: {len(open_round.reports)} of {counted(len(open_round.sent), 'site')} delivered, "
                f"aggregation.min_sites is {self.settings.aggregation.min_sites}; the log says what kept the others"
            )
        open_round.close()
        if not (self._method.fuses_first and open_round.waits):
            open_round.hand_on()
        self._fusion_missed = False
        fused = self._method.close(partial(self._fuse, abort), number)
        self._changes.clear()
        for site, remark in sorted(self._method.remarks().items()):
            self.log(f"round {number}: {site}: {remark}")
        self.round = number
        validated = self._validate(number, abort)
        figures = (
            note_fusion(self._records, number, fused, self._fusion.spent())
            | note_sites(self._records, open_round, self.profiles)
            | note_filters(self._records, open_round, self._method)
            | note_method(self._records, self._method)
            | validated
        )
        seconds = self._keep_round()
        self.last_round = summary(open_round, not self._fusion_missed, self.profiles, seconds)
        give_back()
        return figures | figures_of(seconds)

    def _give_up_round(self) -> None:
        self._open.give_up()
        self._changes.clear()
        self._method.restore(self._state.load()["method"])
        for site, profile in self.profiles.items():
            self._method.join(site, profile.modalities)
        self.log(
            f"round {self._open.number} does not take place: the privacy budgets of "
            f"{', '.join(site for site in self.profiles if not self.trains(site))} are spent, and fewer sites "
            f"than {self.settings.aggregation.min_sites} are left to train; the models are tested"
        )

    def _fuse(self, abort: Abort, weights: Tensors, round_number: int, extras: Tensors | None = None) -> Fused | None:
        steps = self._fusion.steps()
        if round_number == 0:
            work = f"{counted(steps, 'step')} at the fusion site" if steps else "the fusion site trains"
            self.log(f"round 0: {work} before the sites begin")

        def progress(step: int, loss: float | None) -> None:
            self._live |= {"step": step, "steps": steps} | ({} if loss is None else {"loss": loss})

        self._live = {"phase": "fusion training", "round": round_number}
        try:
            with self.timing.during("fusion_training"):
                fused = self._fusion.fuse(weights, round_number, abort, progress, extras)
            self._check_extras(fused)
            self._bound.note_fusion(fused.changes(weights))
            self._extras_bound.note_fusion(parts(fused.extras, (EXTRA,)))
            self._hand_on()
            return fused
        except FusionAway as error:
            if round_number == 0:
                raise
            self.log(f"round {round_number}: goes on without fusion training: {error}")
            self._records.miss(FUSION_SITE, round_number, error.public)
            self._fusion_missed = True
            self._hand_on()
            return None

    def _hand_on(self) -> None:
        """Hands on updates that waited for the fusion site's training as one more size to be compared with."""
        if self._open is not None and self._open.waits:
            self._open.hand_on()

    def _check_extras(self, fused: Fused) -> None:
        try:
            check_extras(FUSION_SITE, self._method.expect_extras(FUSION_SITE), parts(fused.extras, (EXTRA,)))
        except UpdateRefused as error:
            raise FusionAway(str(error), str(error)) from error

    def _validate(self, round_number: int, abort: Abort) -> dict[str, float]:
        """Scores the global model where that is due; returns the figures."""
        if not self.settings.validation_is_due(round_number) or not self._fusion.profile.cases["validation"]:
            return {}
        self._live = {"phase": "validating", "round": round_number}
        try:
            with self.timing.during("fusion_evaluation"):
                validation = self._model.validate(self._method, round_number, abort)
        except FusionAway as error:
            self.log(f"round {round_number}: the global model is not validated: {error}")
            return {}
        if validation is None:
            return {}
        self._records.validate(FUSION_SITE, validation)
        return score_figures(SERVER, validation)

    # The final test

    def test_payload(self, site: str) -> Payload:
        """Sent with the final test: nothing, since every site tests the model that it keeps."""
        return Payload(self.round)

    def accept_test(self, site: str, report: dict[str, Any]) -> None:
        """Takes a site's test scores.

        Raises:
            UpdateRefused: the report is not what a site's test returns.
        """
        checked = check_report(site, TestReport, report, self._task)
        cases = check_cases(site, checked["each"], self.profiles[site].cases["test"])
        self._records.test(site, checked["test"], cases)
        self._note_withheld(site, checked["withheld"])

    def _note_withheld(self, owner: str, withheld: Withheld | None) -> None:
        if withheld:
            self._records[owner]["untested"] = reason_of(withheld)

    def miss_test(self, site: str, reason: str) -> None:
        """Notes why a site's model is not tested."""
        self._records[site]["untested"] = reason

    def begin_cross_site(self) -> CrossSiteTest:
        """Opens the test of every model on every site's test cases; :meth:`finish` closes it."""
        self._cross_site_test = CrossSiteTest(self.profiles, self._fusion.profile, self._task)
        return self._cross_site_test

    def global_copy(self) -> ModelCopy:
        """The global model that is tested, for the sites to test too."""
        self._keep_last()
        return self._model.copy()

    def test_model(self, model: str, copy: ModelCopy, abort: Abort) -> None:
        """Has a site's model tested on the fusion site's test cases, unless that makes no sense."""
        self._live = {"phase": "testing across sites", "round": self.round, "model": model}
        if SERVER in self._cross_site_test.targets(model):
            self._cross_site_test.accept(model, SERVER, self._fusion.test_copy(copy, self.round, abort))

    def _keep_last(self) -> None:
        self._model.keep_last(self._method, self.round, self._records[FUSION_SITE]["validation"])

    def finish(self, abort: Abort) -> dict[str, Any]:
        """Tests the global model that was best on validation, and writes the results."""
        if not self.finished:
            self._live = {"phase": "testing", "round": self.round}
            self._keep_last()
            self._test(abort)
            if self._cross_site_test is not None:
                records = {SERVER: self._records[FUSION_SITE]} | {site: self._records[site] for site in self.profiles}
                self._cross_site = self._cross_site_test.result(records)
            self.finished = True
            self.timing.end_testing()
            self._keep()
        self._live = {"phase": "finished", "round": self.round}
        return self._write_results()

    def _test(self, abort: Abort) -> None:
        record = self._records[FUSION_SITE]
        try:
            tested = self._model.test(self.round, abort)
            cases = check_cases(FUSION_SITE, tested.each, self._fusion.profile.cases["test"])
            self._records.test(FUSION_SITE, tested.scores, cases)
            self._note_withheld(FUSION_SITE, tested.withheld)
        except FusionAway as error:
            self.log(f"the global model is not tested: {error}")
            record["untested"] = error.public
        self._model.files.end_test(record["test"])

    # State and results

    def stats(self) -> dict[str, Any]:
        """Live state for the admin console: phase, round, sites that are in and missing, scores, personal share."""
        validated = {site: self._records[site]["validation"] for site in self._records}
        stats = {
            "round": self.round,
            "rounds": self.settings.rounds,
            **self._live,
            "last_round": self.last_round,
            "sites_in": sorted(self._open.reports) if self._open else [],
            "sites_missing": self._open.waiting_for() if self._open else [],
            "mdsc": {site: validation["mdsc"] for site, validation in validated.items() if validation},
        }
        share = mean_personal_share(self._records, self._method)
        if share is not None:
            stats["personal_share"] = round(share, 4)
        left = range(self.round + 1, self.settings.rounds + 1)
        seconds = self.timing.seconds_left(len(left), sum(map(self.settings.validation_is_due, left)))
        if seconds is not None:
            stats["seconds_left"] = round(seconds)
        return stats

    def _keep_round(self) -> RoundSeconds:
        self.timing.enter("saving")
        self.timing.name_round(self.round)
        self._keep()
        return self.timing.end_round()

    def _keep(self) -> None:
        self._state.save(
            {
                "round": self.round,
                "finished": self.finished,
                "method": self._method.state(),
                "fusion": self._fusion.profile.to_json(),
                "profiles": {site: profile.to_json() for site, profile in self.profiles.items()},
                "records": self._records.state(),
                "bound": self._bound.state(),
                "extras_bound": self._extras_bound.state(),
                "best": self._model.files.score,
                "timing": self.timing.state(),
                "cross_site": self._cross_site,
                "left_out": self._left_out,
            }
        )
        self._write_results()

    def restore(self) -> None:
        """Goes on from the state in the folder, if there is one.

        Raises:
            CheckpointError: it cannot be read, or was written by another version or with other settings.
        """
        content = self._state.load()
        if content is None:
            return
        self.round, self.finished = content["round"], content["finished"]
        self._method.restore(content["method"])
        self.profiles = {site: SiteProfile.from_json(profile) for site, profile in content["profiles"].items()}
        self._records.restore(content["records"])
        self._model.files.score = content["best"]
        # In a run that an older version began, the next round waits for a median of its own.
        for bound, key in ((self._bound, "bound"), (self._extras_bound, "extras_bound")):
            if key in content:
                bound.restore(content[key])
        self.timing.restore(content["timing"])
        self._cross_site = content["cross_site"]
        # An older version does not say.
        self._left_out = content.get("left_out", {})

    def _write_results(self) -> dict[str, Any]:
        if self._download_folder is not None:
            self._model.copy_files(self._download_folder)
        written = self.results()
        results.write(self.results_folder, written, self.histories())
        return written

    def histories(self) -> dict[str, Any]:
        """The curves of the server and of every site, see :class:`~fedmepd.federation.records.Records`."""
        histories = {SERVER: self._records[FUSION_SITE]["history"]}
        return histories | {name: self._records[name]["history"] for name in self.profiles}

    def results(self) -> dict[str, Any]:
        """The results so far, see :func:`fedmepd.evaluation.results.build`."""
        fusion, batch = self._fusion.profile, self.settings.training.batch
        return results.build(
            self.settings,
            status="finished" if self.finished else "running",
            round=self.round,
            seconds=self.timing.total(),
            timing=self.timing.summary(),
            server=results.site_entry(
                SERVER,
                fusion.modalities,
                fusion.cases,
                self._records[FUSION_SITE],
                work=self._records.work(FUSION_SITE, batch, networks=1),
            ),
            sites=[
                results.site_entry(
                    name,
                    profile.modalities,
                    profile.cases,
                    self._records[name],
                    personal_share=personal_share(self._method, name),
                    work=self._records.work(name, batch, methods.find(self.settings.method).networks),
                )
                for name, profile in self.profiles.items()
            ],
            filters={layer.removeprefix(DECODER): count for layer, count in self._method.layers().items()},
            cross_site=self._cross_site,
            left_out={site: reason for site, reason in self._left_out.items() if site not in self.profiles},
            fusion_bytes=tuple(
                sum(entry.get(key, 0) for entry in self._records[FUSION_SITE]["history"]["rounds"])
                for key in ("bytes_up", "bytes_down")
            ),
            machine=hardware(device_name(self._fusion.device), torch.get_num_threads()),
            precision=chosen_precision(self._fusion.device, self.settings.training.training_precision()),
            source=fusion.source,
        )
