"""A site of the federation: what it keeps, trains and reports (algorithm section 3.1 and 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.site import SiteData
from fedmepd.disclosure import OPEN, Disclosure, Told
from fedmepd.errors import FedMEPDError
from fedmepd.federation import agreed_weights
from fedmepd.federation.asked_tasks import AskedTasks
from fedmepd.federation.case_list import CaseList
from fedmepd.federation.cross_site import copy_of, network_of, test_copy
from fedmepd.federation.diary import Diary
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.federation.kept_states import KeptStates
from fedmepd.federation.model_card import write_model_card
from fedmepd.federation.private import disclosed, images_of, privacy_of
from fedmepd.methods.method import Tensors
from fedmepd.methods.parts.personal_filters import decoder_layers
from fedmepd.methods.parts.selection import DECODER
from fedmepd.networks.network import FedMEPDNet
from fedmepd.privacy.participant import Account, BudgetSpent
from fedmepd.seeds import Secret, derive_seed
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.site_settings import SitePrivacy
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.best_model import ModelFiles
from fedmepd.training.checkpoints import About, load_model
from fedmepd.training.epoch import make_optimizer
from fedmepd.training.kept_network import restore, state_of
from fedmepd.training.memory import give_back, peak_mib
from fedmepd.training.round import RoundTraining

BEST = "model_best.pt"
LAST = "model_last.pt"


class FederationSite:
    """Trains one site's network, round by round.

    After each round its whole state is on disk, so that a process that starts later, even for every round anew, goes on
    from it with the same bits. The state before the last round is kept too: a server that is started again may ask for
    that round once more.

    Args:
        name: the site's name.
        settings: of the job, as sent by the server.
        data: the site's cases.
        folder: where the site keeps its state and models for this run.
        device: to train on.
        log: takes lines about the progress.
        cross_site, case_scores: what the site agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
        disclosure: what may leave the site.
        limits: what a task may ask of its machine.
        secret: decides crops and dropout together with the job's seed; see :data:`fedmepd.seeds.Secret`.
        demanded: of differential privacy by the site.
        account: of what it has spent of its privacy budget; None: in its folder, for this run alone.
        peak: returns the most memory in MiB that the site's process has held; None if it is not the site's alone.
        clock: seconds; only differences count.

    Raises:
        FedMEPDError: the method must not be used with the site's cases, or not with differential privacy.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        data: SiteData,
        folder: Path,
        device: torch.device,
        log: Callable[[str], None] = lambda line: None,
        cross_site: str = "none",
        case_scores: str = "none",
        disclosure: Disclosure = OPEN,
        limits: Limits = HIGHEST,
        secret: Secret = (),
        peak: Callable[[], float | None] = peak_mib,
        clock: Callable[[], float] = time.monotonic,
        demanded: SitePrivacy = SitePrivacy(),  # noqa: B008 (frozen)
        account: Account | None = None,
    ):
        # Here, since a server need not ask for the profile before it asks for training.
        methods.find(settings.method).require_source(name, data.source)
        self._privacy = privacy_of(
            name,
            settings,
            demanded,
            data.train,
            account or Account.of_run(folder),
            log,
            epochs=settings.training.local_epochs,
            rounds=settings.rounds,
        )
        # Made-up cases are nobody's: their sites always agree.
        self.cross_site = "share" if data.source == "phantom" else cross_site
        self.disclosure = disclosed(disclosure.of_source(data.source), self._privacy, demanded, data)
        self.limits, self._secret = limits, secret
        self.name = name
        settings = self.settings = self.disclosure.raise_floors(settings)
        self.data = data
        self.folder = Path(folder)
        self.device = device
        self.log = log
        self._case_scores, self._peak = case_scores, peak
        self._clock = clock
        self._method = methods.find(settings.method).at_site(settings)
        self._states = KeptStates(self.folder)
        self._asked = AskedTasks(self.folder, limits)
        self._models = ModelFiles(
            self.folder,
            BEST,
            LAST,
            partial(About.of, name, settings, images_of(self._privacy, data), data.phantoms),
            partial(
                write_model_card,
                owner=name,
                settings=settings,
                modalities=data.modalities,
                cases=data.counts(),
                phantoms=data.phantoms,
                cohort=settings.data.cohort(data.source),
                privacy=lambda: self._spent(),
            ),
        )
        self._round: int | None = None
        self._network: FedMEPDNet | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._validation: dict[str, Any] | None = None
        self._batches: TrainingBatches | None = None
        self._agreed: frozenset[str] | None = None
        self._told = Told(data.validation)
        self._live: dict[str, Any] = {}
        self._diary: Diary | None = None

    def profile(self, fusion: dict[str, int] | None = None) -> SiteProfile:
        """What the site says of itself before it takes part.

        Args:
            fusion: numbers of its cases as the job's fusion site; None where it is not.

        Raises:
            FedMEPDError: the site has no case to train on.
        """
        counts = self.data.counts()
        alone = fusion is not None and not any(counts.values())
        if self._method.needs_cases and not counts["train"] and not alone:
            message = "no training case: expected at least one labelled case"
            raise FedMEPDError(f"{self.name}: {message}", public=message)
        return SiteProfile(self.name, self.data.modalities, counts, self.data.source, self.cross_site, fusion)

    def cases_behind(self) -> dict[str, int]:
        """Numbers of cases behind what leaves the site, by kind (:class:`fedmepd.federation.egress.Item`)."""
        counts = self.data.counts()
        trained = dict.fromkeys(("updates", "extras", "losses", "model"), counts["train"])
        tested = dict.fromkeys(("test_scores", "case_scores", "model_scores"), counts["test"])
        return trained | tested | {"validation_scores": counts["validation"]}

    def stats(self) -> dict[str, Any]:
        """Live state: round, step, steps, and the step's loss where that may be seen."""
        if not self.disclosure.allow.live:
            return {}
        hidden = () if self.disclosure.tells_steps() else ("loss",)
        return {key: value for key, value in self._live.items() if key not in hidden}

    def train(self, payload: Payload, abort: Callable[[], bool]) -> Update:
        """Takes in what the server sent, trains an epoch, validates when it is time, and keeps the state.

        Args:
            payload: for a round from 1 on.
            abort: asked before every step.

        Raises:
            Aborted: ``abort`` said so; the state on disk is that of the round before.
            BudgetSpent: there is no privacy left for the round; the site's model is kept.
            FedMEPDError: the payload does not fit, or asks for weights that are to stay, the loss is not finite, the
                state cannot be written, or the work goes beyond the site's limits, as also a round does that was asked
                for too often.
        """
        started = self._clock()
        self.limits.check_round(payload.round)
        self._asked.note("train", payload.round)
        abort = self.limits.in_time(abort)
        use_threads(self.settings.training.threads, self.limits.threads)
        self._bring_to_before(payload.round)
        round_number = payload.round
        if self._agreed is None:
            self._agreed = agreed_weights.of_site(self.settings, self.name, self.data.modalities)
        agreed_weights.require_agreed(self.name, self.settings.method, self._given(payload), self._agreed)
        # Whatever goes wrong from here on, the next round starts from the state on disk.
        self._round = None
        self._method.take_in(self._network, payload.tensors, round_number)
        before = {key: value.clone() for key, value in self._given(payload).items()}
        try:
            training = self._train_round(payload, abort)
        except BudgetSpent:
            self._end_training(round_number)
            raise
        report: dict[str, Any] = {
            "cases": len(self.data.train),
            "losses": self._own_losses(training.report.means()),
            "figures": self._own_losses(training.figures),
            "steps": training.taken,
            "validation": None,
        }
        changes = {key: (value - before[key]).contiguous() for key, value in self._given(payload).items()}
        extras = self._method.leave(round_number)
        trained = self._clock()
        if self._validates(round_number):
            self._validate(round_number, abort)
            report["validation"], _ = self.disclosure.scores("validation_scores", self._validation, self._told)
        durations = {"train_seconds": trained - started, "validation_seconds": self._clock() - trained}
        self._keep(round_number)
        figures = training.report.means() | training.figures
        validation = self._validation if self._validates(round_number) else None
        self._noted().end_round(round_number, figures, validation, self._personal_filters(payload))
        give_back()
        report |= self.disclosure.seconds(durations | {"seconds": self._clock() - started})
        report |= {"peak_mib": self.disclosure.memory(self._peak()), "privacy": self._spent()}
        self._live["phase"] = "waiting"
        return Update(round_number, changes | extras, report)

    def test(self, payload: Payload, abort: Callable[[], bool]) -> dict[str, Any]:
        """Tests the model that was best on validation (without validation cases: the last one) on the test cases.

        Returns:
            a :class:`~fedmepd.federation.reports.TestReport` as plain values.
        """
        self._asked.note("test", payload.round)
        self._require_model(payload.round)
        path = self._models.tested()
        self._live = {"phase": "testing"}
        use_threads(self.settings.training.threads, self.limits.threads)
        network = load_model(path).to(self.device)
        examples = self._noted().test_examples()
        each, told = CaseList(self.data, self._case_scores, self.disclosure), Told(self.data.test)
        abort = self.limits.in_time(abort)

        def watch(*of_case: Any) -> None:
            for one in (examples, each, told):
                one.watch(*of_case)

        scores = score_cases(
            network,
            self.data.test,
            self.settings,
            self.data.cache,
            distances=True,
            abort=abort,
            limits=self.limits,
            watch=watch,
        )
        selected = self._models.end_test(scores)
        self._noted().end_test(scores, selected, examples)
        self._live["phase"] = "finished"
        scores, withheld = self.disclosure.scores("test_scores", scores, told)
        # Which round was best on validation is a score too.
        selected = None if withheld else selected
        return {"test": scores, "withheld": withheld, "selected_round": selected, "each": each.report(withheld)}

    def give_model(self) -> ModelCopy:
        """Returns the tested model, for the other sites to test.

        Raises:
            FedMEPDError: the site has not agreed to that, or has no model.
        """
        self._require("share")
        self._require_allowed("model")
        self._asked.note("give_model", 0)
        return copy_of(load_model(self._models.tested()))

    def test_model(self, copy: ModelCopy, abort: Callable[[], bool]) -> dict[str, Any]:
        """Tests a model of others on the site's test cases.

        Returns:
            a :class:`~fedmepd.federation.reports.CrossSiteReport` as plain values.

        Raises:
            FedMEPDError: the site has not agreed to that, or the model does not fit.
        """
        self._require("test", "share")
        self._require_allowed("model_scores")
        self._asked.note("test_model", 0)
        self._live = {"phase": "testing a model of others"}
        use_threads(self.settings.training.threads, self.limits.threads)
        network = network_of(copy, self.settings).to(self.device)
        abort = self.limits.in_time(abort)
        report = test_copy(network, self.data, self.settings, abort, self.disclosure, self.limits)
        self._live["phase"] = "finished"
        return report

    def _require(self, *agreed: str) -> None:
        if self.cross_site not in agreed:
            message = f"not agreed: the site's cross_site is {self.cross_site!r}, expected {' or '.join(agreed)}"
            raise FedMEPDError(f"{self.name}: {message}", public=message)

    def _require_allowed(self, kind: str) -> None:
        if not getattr(self.disclosure.allow, kind):
            message = f"not allowed: allow.{kind} of the site is false"
            raise FedMEPDError(f"{self.name}: {message}", public=message)

    def _own_losses(self, losses: dict[str, float]) -> dict[str, float]:
        return self.disclosure.losses(self.data.train, losses)

    def _noted(self) -> Diary:
        if self._diary is None:
            filters = {}
            # A process that only tests has no network of its own.
            network = self._network or self._method.network(self.data.modalities)
            if self._method.personalizes:
                layers = decoder_layers(network.state_dict())
                filters = {layer.removeprefix(DECODER): count for layer, count in layers.items()}
            self._diary = Diary(self.name, self.settings, self.data, self.folder, filters, self.log)
        return self._diary

    def _bring_to_before(self, round_number: int) -> None:
        """Puts the site into the newest state that is older than the round."""
        if self._round is not None and self._round < round_number:
            return
        self._start_network()
        newest = self._states.newest_before(round_number)
        if self._privacy is not None:
            self._privacy.require_beginning(newest or 0)
        if newest is not None:
            self._restore(newest)
        self._noted().rewind(newest or 0)

    def _start_network(self) -> None:
        self._method = methods.find(self.settings.method).at_site(self.settings)
        self._network = self._method.network(self.data.modalities).start(self.settings.seed).to(self.device)
        self._method.start(self._network, self.data)
        self._optimizer = make_optimizer(self._network, self.settings.training)
        self._models.recall(self.data.modalities)
        self._validation, self._round = None, 0

    def _given(self, payload: Payload) -> Tensors:
        return self._method.give(self._network, payload.tensors)

    def _personal_filters(self, payload: Payload) -> dict[str, int]:
        filters = self._method.personal_filters(payload.tensors)
        return {layer.removeprefix(DECODER): count for layer, count in filters.items()}

    def _train_round(self, payload: Payload, abort: Callable[[], bool]) -> RoundTraining:
        if self._batches is None:
            self._batches = TrainingBatches(
                self.data.train, self.settings, (self.name,), self.data.cache, secret=self._secret
            )
        torch.manual_seed(derive_seed(self.settings.seed, self.name, payload.round, *self._secret))

        def progress(step: int, loss: float | None) -> None:
            of_step = {"round": payload.round, "step": step, "steps": training.planned, "loss": loss}
            self._live = {"phase": "training", **of_step}

        training = RoundTraining(
            self.settings,
            self.name,
            payload.round,
            self._network,
            self._optimizer,
            self._batches,
            self.settings.training.local_epochs,
            abort,
            progress,
            self._secret,
            self._privacy,
        )
        self._method.train(training, payload.tensors)
        return training

    def _end_training(self, round_number: int) -> None:
        """Keeps the model of the newest state before a round: there may be no round after it."""
        self._bring_to_before(round_number)
        if self._round:
            self._models.keep_last(self._method.scored(self._network), self._round, self._validation)

    def _require_model(self, round_number: int) -> None:
        """Keeps the model after a round, the last one, where no validation has come before the end of the training."""
        if not self._models.any():
            self._end_training(round_number + 1)

    def _spent(self) -> dict[str, Any] | None:
        return None if self._privacy is None else self._privacy.spent()

    def _validates(self, round_number: int) -> bool:
        return bool(self.data.validation) and self.settings.validation_is_due(round_number)

    def _validate(self, round_number: int, abort: Callable[[], bool]) -> None:
        self._live["phase"] = "validating"
        examples, self._told = self._noted().validation_examples(), Told(self.data.validation)

        def watch(*of_case: Any) -> None:
            for one in (examples, self._told):
                one.watch(*of_case)

        network = self._method.scored(self._network)
        scores = score_cases(
            network,
            self.data.validation,
            self.settings,
            self.data.cache,
            distances=False,
            abort=abort,
            limits=self.limits,
            watch=watch,
        )
        self._validation = {"round": round_number, "dice": scores["dice"], "mdsc": scores["mdsc"]}
        if self._models.offer(network, round_number, self._validation):
            self._noted().better(examples)

    def _keep(self, round_number: int) -> None:
        content = {
            "settings": self.settings.model_dump(mode="json"),
            "round": round_number,
            **state_of(self._network, self._optimizer),
            "method": self._method.state(),
            "best": self._models.score,
            "validation": self._validation,
        }
        self._states.save(round_number, content)
        # Without validation there is no best model: the last one has to be there whenever the site is tested.
        if round_number == self.settings.rounds or not self.data.validation:
            self._models.keep_last(self._method.scored(self._network), round_number, self._validation)
        self._round = round_number

    def _restore(self, round_number: int) -> None:
        path, content = self._states.load(round_number)
        before = restore(path, content, self._network, self._optimizer)
        # A state of version 0.2 has none, and no method that keeps anything.
        self._method.restore(content.get("method", {}))
        self._models.score, self._validation = content["best"], content["validation"]
        self._round = content["round"]
        self.log(f"{self.name}: continues from its state after round {self._round}")
        if set(before) != set(self.data.modalities):
            # The best model so far was measured on, and fits, other images.
            self._models.score, self._validation = None, None
            self.log(f"{self.name}: now has {' '.join(self.data.modalities)}, not {' '.join(before)}")
