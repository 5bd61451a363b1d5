"""The fusion site: the participant with all modalities, which trains the global model every round (section 3.4)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from fedmepd import methods
from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.data.training_images import ImageMeasures
from fedmepd.disclosure import OPEN, Disclosure, Told
from fedmepd.errors import FedMEPDError, FusionAway
from fedmepd.federation.asked_tasks import AskedTasks
from fedmepd.federation.case_list import CaseList
from fedmepd.federation.cross_site import network_of, test_copy
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import ModelCopy, SiteProfile, Tested
from fedmepd.federation.kept_states import KeptStates
from fedmepd.federation.private import disclosed, privacy_of, told_images
from fedmepd.methods.method import Fused, Spent, Tensors
from fedmepd.methods.parts.fusion_training import FusionTrainer
from fedmepd.methods.parts.selection import ANCHORS
from fedmepd.privacy.participant import Account, BudgetSpent
from fedmepd.seeds import Secret
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.site_settings import SitePrivacy
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.epoch import Progress
from fedmepd.training.memory import peak_mib

Abort = Callable[[], bool]


class Fusion(Protocol):
    """The fusion site as the server sees it, in its own process or elsewhere.

    Attributes:
        profile: what it says of its cases.
        device: of this process that trains; the CPU where nothing trains here.
        images, phantoms: of its training cases, see :class:`fedmepd.data.site.SiteData`, as far as the server knows it.
    """

    profile: SiteProfile
    device: torch.device
    images: ImageMeasures
    phantoms: bool

    def join(self, site: SiteProfile) -> None:
        """Learns of a site before its first round, and whenever it logs in again.

        Raises:
            FedMEPDError: the method needs the site's cases here, and they are not the ones that the site has.
        """
        ...

    def fuse(
        self,
        weights: Tensors,
        round_number: int,
        abort: Abort,
        progress: Progress | None = None,
        extras: Tensors | None = None,
    ) -> Fused:
        """Trains a round, starting from the given weights of the global model.

        ``extras`` are other tensors that the method needs there, with names ``extra.<name>``.

        Raises:
            FusionAway: it is not there, or could not do it; the round goes on without.
            Aborted: ``abort`` said so.
        """
        ...

    def spent(self) -> tuple[int, int]:
        """Bytes of tensors up and down since the last call; 0 where nothing travels."""
        ...

    def steps(self) -> int | None:
        """How many steps a round has; None where that is not known here."""
        ...

    def validate(self, weights: Tensors, round_number: int, abort: Abort) -> dict[str, Any] | None:
        """Scores the global model on the validation cases; None without such cases.

        Raises:
            FusionAway, Aborted: as of :meth:`fuse`.
        """
        ...

    def test(self, weights: Tensors, round_number: int, abort: Abort) -> Tested:
        """Scores a global model on the test cases, distances included.

        Raises:
            FusionAway, Aborted: as of :meth:`fuse`.
        """
        ...

    def test_copy(self, copy: ModelCopy, round_number: int, abort: Abort) -> dict[str, Any]:
        """Tests a site's model on the test cases; returns a cross-site report.

        Raises:
            FusionAway, Aborted: as of :meth:`fuse`.
        """
        ...


class FusionSite:
    """Trains on the fusion data, makes what may leave them, validates and tests the global model.

    It owns its cases, the optimizer, the auxiliary decoder where that does not travel, and what the method keeps here.
    After each round its state is on disk, and the one before too, so that a round can be asked for again.

    Args:
        settings: of the job.
        data: with all modalities.
        folder: for its states.
        device: to train on.
        log: takes lines about the progress.
        open_site: finds the data of a site in this process's data folder, for a method that pools all cases.
        case_scores: what its machine agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
        disclosure: what may leave it. Its smallest number of cases holds for anchors too, whatever the job says.
        limits: what a task may ask of its machine.
        secret: decides crops and dropout together with the job's seed; see :data:`fedmepd.seeds.Secret`.
        demanded: of differential privacy by its machine.
        account: of what it has spent of its privacy budget; None: in the folder, for this run alone.

    Raises:
        DataError: no training case has all modalities.
        FedMEPDError: the method must not be used with patients' images, which these are.
    """

    def __init__(
        self,
        settings: Settings,
        data: SiteData,
        folder: Path,
        device: torch.device,
        log: Callable[[str], None] = lambda line: None,
        open_site: Callable[[str], SiteData] | None = None,
        case_scores: str = "none",
        disclosure: Disclosure = OPEN,
        limits: Limits = HIGHEST,
        secret: Secret = (),
        demanded: SitePrivacy = SitePrivacy(),  # noqa: B008 (frozen)
        account: Account | None = None,
    ):
        methods.find(settings.method).require_source(FUSION_SITE, data.source)
        self._open_site = open_site
        self._pooled: dict[str, SiteData] = {}
        self.disclosure = disclosure.of_source(data.source)
        self.limits, self._secret = limits, secret
        self.settings = self.disclosure.raise_floors(settings)
        self.data = data
        self.device = device
        self.log = log
        method = methods.find(settings.method).at_fusion_site(settings, log)
        self._privacy = privacy_of(
            FUSION_SITE,
            settings,
            demanded,
            method.cases(data),
            account or Account.of_run(folder),
            log,
            epochs=settings.training.fusion_epochs,
            rounds=settings.rounds + methods.find(settings.method).at_server.begins_with_fusion,
            vectors=method.releases_vectors,
        )
        self.disclosure = disclosed(self.disclosure, self._privacy, demanded, data)
        self.images, self.phantoms = told_images(self._privacy, data, self.disclosure), data.phantoms
        self._case_scores = case_scores
        # It has agreed to test models of others by taking part.
        self.profile = SiteProfile(FUSION_SITE, data.modalities, data.counts(), data.source, "share")
        self._states = KeptStates(folder)
        self.asked = AskedTasks(folder, limits)
        self._round: int | None = None
        # Of the weights that the network holds; another one after every change.
        self.version = ""
        self._start()

    def _start(self) -> None:
        self._method = methods.find(self.settings.method).at_fusion_site(self.settings, self.log)
        self._method.privacy = self._privacy
        self._trainer = FusionTrainer(self.settings, self.data, self._cases(), self.device, self._secret, self._privacy)
        self._method.start(self._trainer.network, self.data)

    def _cases(self) -> list[Case]:
        # By name, not in the order in which the sites have come.
        pooled = [case for _, data in sorted(self._pooled.items()) for case in data.train]
        return self._method.cases(self.data) + pooled

    def join(self, site: SiteProfile) -> None:
        """See :meth:`Fusion.join`."""
        data = self._method.pool(site.name, self._open_site)
        if data is None:
            return
        found, own = (data.modalities, data.counts()), (site.modalities, site.cases)
        if found != own:
            said, here = (f"{', '.join(modalities)}; {counts}" for modalities, counts in (own, found))
            raise FedMEPDError(
                f"{site.name} has other cases than the server's data folder has of it ({said}, here {here}): method "
                f"{self.settings.method} trains on all cases where the server runs",
                public="the server does not have the site's cases",
            )
        self._pooled[site.name] = data
        self._trainer.train_on(self._cases())

    def cases_behind(self) -> dict[str, int]:
        """Numbers of cases behind what leaves it, by kind; behind anchors at least that many each."""
        counts = self.data.counts()
        trained = dict.fromkeys(("updates", "extras", "losses"), self._trainer.cases)
        tested = dict.fromkeys(("test_scores", "case_scores", "model_scores"), counts["test"])
        floors = [getattr(getattr(self.settings, part), key) for part, key in self.settings.fewest_cases]
        anchors = {"anchors": min(floors)} if floors else {}
        return trained | tested | anchors | {"validation_scores": counts["validation"]}

    def steps(self) -> int:
        """How many steps a round has."""
        return self._trainer.steps_per_epoch() * self.settings.training.fusion_epochs

    def spent(self) -> tuple[int, int]:
        """See :meth:`Fusion.spent`."""
        return 0, 0

    def fuse(
        self,
        weights: Tensors,
        round_number: int,
        abort: Abort,
        progress: Progress | None = None,
        extras: Tensors | None = None,
        settle: Callable[[Tensors, Tensors], Tensors] = lambda before, after: after,
    ) -> Fused:
        """See :meth:`Fusion.fuse`.

        ``settle`` makes of the weights before and after the training those that count.
        """
        started = time.monotonic()
        use_threads(self.settings.training.fusion_threads, self.limits.threads)
        self.bring_to_before(round_number)
        # Whatever goes wrong from here on, the next round starts from the state on disk.
        self._round = None

        def told(step: int, loss: float | None) -> None:
            if progress is not None:
                progress(step, loss if self.disclosure.tells_steps() else None)

        try:
            training = self._trainer.train(
                weights,
                round_number,
                lambda training: self._method.train(training, weights, extras or {}),
                abort=abort,
                progress=told,
            )
        except BudgetSpent as error:
            raise FusionAway(str(error), error.public) from error
        trained = self._trainer.state()
        fused = settle(weights, {key: trained[key] for key in weights})
        self.load(fused)
        leaving = self._method.leave(round_number)
        if not self.disclosure.allow.anchors:
            leaving = {key: value for key, value in leaving.items() if not key.startswith(ANCHORS)}
        self._keep(round_number)
        cases, trained_on = self._trainer.cases, self._cases()
        losses, figures = (self.disclosure.losses(trained_on, of) for of in (training.report.means(), training.figures))
        spent = Spent(training.taken, time.monotonic() - started, self.disclosure.memory(peak_mib()))
        privacy = None if self._privacy is None else self._privacy.spent()
        return Fused(fused, losses, cases, leaving, figures, spent, privacy)

    def weights(self) -> Tensors:
        """Of its whole network as it is now, by name."""
        return self._trainer.state()

    def load(self, weights: Tensors) -> None:
        """Takes over weights, and gives them a version of their own."""
        self._trainer.network.load_state_dict(weights, strict=False)
        self.version = uuid.uuid4().hex

    def bring_to_before(self, round_number: int) -> None:
        """Goes to the newest state that is older than the round."""
        if self._round is not None and self._round < round_number:
            return
        self._start()
        self._round = -1
        newest = self._states.newest_before(round_number)
        if self._privacy is not None:
            # Its first round is round 0.
            self._privacy.require_beginning(0 if newest is None else newest + 1)
        if newest is None:
            if round_number > 1:
                self.log("the fusion site has no state of this run: its optimizer and what its method keeps start anew")
            return
        _, content = self._states.load(newest)
        self._trainer.network.load_state_dict(content["network"])
        self._trainer.optimizer.load_state_dict(content["optimizer"])
        self._method.restore(content["method"])
        self._round, self.version = content["round"], content["version"]

    def _keep(self, round_number: int) -> None:
        content = {
            "round": round_number,
            "version": self.version,
            "network": self._trainer.state(),
            "optimizer": self._trainer.optimizer.state_dict(),
            "method": self._method.state(),
        }
        self._states.save(round_number, content)
        self._round = round_number

    def validate(self, weights: Tensors, round_number: int, abort: Abort) -> dict[str, Any] | None:
        """See :meth:`Fusion.validate`."""
        told = Told(self.data.validation)
        scores = self._score(weights, self.data.validation, abort, distances=False, watch=told.watch)
        return self.disclosure.scores("validation_scores", scores, told)[0]

    def test(self, weights: Tensors, round_number: int, abort: Abort) -> Tested:
        """See :meth:`Fusion.test`."""
        each, told = CaseList(self.data, self._case_scores, self.disclosure), Told(self.data.test)

        def watch(*of_case: Any) -> None:
            for one in (each, told):
                one.watch(*of_case)

        scores = self._score(weights, self.data.test, abort, distances=True, watch=watch)
        scores, withheld = self.disclosure.scores("test_scores", scores, told)
        return Tested(scores, each.report(withheld), withheld)

    def _score(self, weights: Tensors, cases: list[Case], abort: Abort, **options: Any) -> dict[str, Any] | None:
        use_threads(self.settings.training.fusion_threads, self.limits.threads)
        self.load(weights)
        options |= {"abort": abort, "limits": self.limits}
        return score_cases(self._trainer.network, cases, self.settings, self.data.cache, **options)

    def test_copy(self, copy: ModelCopy, round_number: int, abort: Abort) -> dict[str, Any]:
        """See :meth:`Fusion.test_copy`."""
        use_threads(self.settings.training.fusion_threads, self.limits.threads)
        network = network_of(copy, self.settings).to(self.device)
        return test_copy(network, self.data, self.settings, abort, self.disclosure, self.limits)
