"""A site of the federation: what it keeps, trains and reports (algorithm section 3.1 and 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.site import SiteData
from fedmepd.errors import CheckpointError, FedMEPDError
from fedmepd.evaluation.model_card import write_model_card
from fedmepd.federation.cross_site import copy_of, network_of, test_copy
from fedmepd.federation.diary import Diary
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.federation.filters import DECODER, decoder_layers, layer_of
from fedmepd.federation.methods import METHODS
from fedmepd.networks.network import FedMEPDNet
from fedmepd.seeds import derive_seed
from fedmepd.storage import load_tensors, remove_leftovers, save_tensors
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.checkpoints import About, describe, load_model, save_model
from fedmepd.training.epoch import EpochReport, learning_rate, make_optimizer, train_epoch
from fedmepd.training.memory import give_back

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
        cross_site: what the site agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
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
    ):
        # Made-up cases are nobody's: their sites always agree.
        self.cross_site = "share" if data.source == "phantom" else cross_site
        self.name = name
        self.settings = settings
        self.data = data
        self.folder = Path(folder)
        self.device = device
        self.log = log
        self._method = METHODS[settings.method]
        self._round: int | None = None
        self._network: FedMEPDNet | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._best: float | None = None
        self._validation: dict[str, Any] | None = None
        self._batches: TrainingBatches | None = None
        self._live: dict[str, Any] = {}
        self._diary: Diary | None = None

    def profile(self) -> SiteProfile:
        """What the site says of itself before it takes part.

        Raises:
            FedMEPDError: the site has no case to train on.
        """
        counts = self.data.counts()
        if self._method.sites_train and not counts["train"]:
            message = "no training case: expected at least one labelled case"
            raise FedMEPDError(f"{self.name}: {message}", public=message)
        return SiteProfile(self.name, self.data.modalities, counts, self.data.source, self.cross_site)

    def stats(self) -> dict[str, Any]:
        """Live state: round, step, steps, loss."""
        return dict(self._live)

    def train(self, payload: Payload, abort: Callable[[], bool]) -> Update:
        """Takes in what the server sent, trains an epoch, validates when it is time, and keeps the state.

        Args:
            payload: for a round from 1 on.
            abort: asked before every step.

        Raises:
            Aborted: ``abort`` said so; the state on disk is that of the round before.
            FedMEPDError: the payload does not fit, the loss is not finite, or the state cannot be written.
        """
        started = time.monotonic()
        use_threads(self.settings.training.threads)
        self._bring_to_before(payload.round)
        round_number = payload.round
        # Whatever goes wrong from here on, the next round starts from the state on disk.
        self._round = None
        self._take_in(payload)
        report: dict[str, Any] = {"cases": len(self.data.train), "losses": {}, "steps": 0, "validation": None}
        changes: dict[str, Tensor] = {}
        if self._method.sites_train:
            before = {key: self._select(key, payload).clone() for key in self._returned(payload)}
            losses = self._train_epochs(round_number, abort)
            report |= {"losses": losses.means(), "steps": losses.steps}
            changes = {key: (self._select(key, payload) - value).contiguous() for key, value in before.items()}
        trained = time.monotonic()
        if self._validates(round_number):
            self._validate(round_number, abort)
            report["validation"] = self._validation
        report |= {"train_seconds": trained - started, "validation_seconds": time.monotonic() - trained}
        self._keep(round_number)
        self._noted().end_round(round_number, report["losses"], report["validation"], _personal_filters(payload))
        give_back()
        report["seconds"] = time.monotonic() - started
        self._live["phase"] = "waiting"
        return Update(round_number, changes, report)

    def test(self, payload: Payload, abort: Callable[[], bool]) -> dict[str, Any]:
        """Tests the model that was best on validation (without validation cases: the last one) on the test cases.

        Returns:
            ``test``: scores or None without test cases; ``selected_round``: the round of the tested model.
        """
        path = self._tested()
        self._live = {"phase": "testing"}
        use_threads(self.settings.training.threads)
        network = load_model(path).to(self.device)
        examples = self._noted().test_examples()
        scores = score_cases(
            network, self.data.test, self.settings, self.data.cache, distances=True, abort=abort, watch=examples.watch
        )
        about = describe(path)["about"]
        self._write_card(path, about["round"], about["scores"], scores)
        self._noted().end_test(scores, about["round"], examples)
        self._live["phase"] = "finished"
        return {"test": scores, "selected_round": about["round"]}

    def _tested(self) -> Path:
        best, last = self.folder / BEST, self.folder / LAST
        path = best if best.is_file() else last
        if not path.is_file():
            message = "no model to test: the site did not finish any round of this run"
            raise FedMEPDError(f"{self.name}: {message}", public=message)
        return path

    def give_model(self) -> ModelCopy:
        """Returns the tested model, for the other sites to test.

        Raises:
            FedMEPDError: the site has not agreed to that, or has no model.
        """
        self._require("share")
        return copy_of(load_model(self._tested()))

    def test_model(self, copy: ModelCopy, abort: Callable[[], bool]) -> dict[str, Any]:
        """Tests a model of others on the site's test cases.

        Returns:
            a :class:`~fedmepd.federation.reports.CrossSiteReport` as plain values.

        Raises:
            FedMEPDError: the site has not agreed to that, or the model does not fit.
        """
        self._require("test", "share")
        self._live = {"phase": "testing a model of others"}
        use_threads(self.settings.training.threads)
        report = test_copy(network_of(copy, self.settings).to(self.device), self.data, self.settings, abort)
        self._live["phase"] = "finished"
        return report

    def _require(self, *agreed: str) -> None:
        if self.cross_site not in agreed:
            message = f"not agreed: the site's cross_site is {self.cross_site!r}, expected {' or '.join(agreed)}"
            raise FedMEPDError(f"{self.name}: {message}", public=message)

    def _noted(self) -> Diary:
        if self._diary is None:
            filters = {}
            if self._method.personalizes:
                # A process that only tests has no network of its own.
                network = self._network or FedMEPDNet(self.data.task, self.data.modalities, self.settings.network.width)
                layers = decoder_layers(network.state_dict())
                filters = {layer.removeprefix(DECODER): count for layer, count in layers.items()}
            self._diary = Diary(self.name, self.settings, self.data, self.folder, filters, self.log)
        return self._diary

    def _bring_to_before(self, round_number: int) -> None:
        """Puts the site into the newest state that is older than the round."""
        if self._round is not None and self._round < round_number:
            return
        self._start_network()
        remove_leftovers(self.folder)
        number = max((number for number in self._kept() if number < round_number), default=0)
        if number:
            self._restore(self._state_file(number))
        self._noted().rewind(number)

    def _start_network(self) -> None:
        settings = self.settings
        calibration = None
        if self._method.personalizes and settings.calibration.enabled:
            calibration = {"residual": settings.calibration.residual, "dropout": settings.calibration.dropout}
        self._network = FedMEPDNet(
            self.data.task,
            self.data.modalities,
            settings.network.width,
            calibration=calibration,
            shared_encoder=settings.network.shared_encoder,
        ).start(settings.seed)
        self._network.to(self.device)
        self._optimizer = make_optimizer(self._network, settings.training)
        self._best, self._validation, self._round = None, None, 0

    def _take_in(self, payload: Payload) -> None:
        """Replaces what the site shares by what the server sent; its personal filters stay."""
        state = self._network.state_dict()
        anchors = {}
        with torch.no_grad():
            for key, value in payload.tensors.items():
                if key.startswith("anchors."):
                    anchors[int(key.removeprefix("anchors."))] = value.float()
                elif not key.startswith("patience."):
                    target = state.get(key)
                    rows = self._shared_rows(key, payload)
                    expected = None if target is None else (target.shape if rows is None else target[rows].shape)
                    if value.shape != expected:
                        message = (
                            f"received {key} of shape {tuple(value.shape)}, expected "
                            f"{'no such weight' if expected is None else tuple(expected)}: server and site run "
                            "different settings or versions"
                        )
                        raise FedMEPDError(f"{self.name}: {message}", public=message)
                    if rows is None:
                        target.copy_(value)
                    else:
                        target[rows] = value.to(target.device)
        if anchors:
            self._network.anchors = anchors

    def _shared_rows(self, key: str, payload: Payload) -> Tensor | None:
        patience = payload.tensors.get(f"patience.{layer_of(key)}") if key.startswith(DECODER) else None
        return None if patience is None else patience > 0

    def _returned(self, payload: Payload) -> list[str]:
        return [key for key in payload.tensors if key.split(".")[0] in self._method.returns]

    def _select(self, key: str, payload: Payload) -> Tensor:
        value = self._network.state_dict()[key].detach().cpu()
        rows = self._shared_rows(key, payload)
        return value if rows is None else value[rows]

    def _train_epochs(self, round_number: int, abort: Callable[[], bool]) -> EpochReport:
        settings = self.settings.training
        if self._batches is None:
            self._batches = TrainingBatches(self.data.train, self.settings, (self.name,), self.data.cache)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, round_number)
        torch.manual_seed(derive_seed(self.settings.seed, self.name, round_number))
        report = EpochReport()
        steps = settings.local_epochs * len(self._batches)

        def progress(step: int, loss: float) -> None:
            self._live = {"phase": "training", "round": round_number, "step": step, "steps": steps, "loss": loss}

        for epoch in range(settings.local_epochs):
            train_epoch(
                self._network,
                self._optimizer,
                self._batches.epoch(round_number * settings.local_epochs + epoch),
                report,
                precision=settings.training_precision(),
                abort=abort,
                progress=progress,
            )
        return report

    def _validates(self, round_number: int) -> bool:
        return bool(self.data.validation) and validation_is_due(self.settings, round_number)

    def _validate(self, round_number: int, abort: Callable[[], bool]) -> None:
        self._live["phase"] = "validating"
        examples = self._noted().validation_examples()
        scores = score_cases(
            self._network,
            self.data.validation,
            self.settings,
            self.data.cache,
            distances=False,
            abort=abort,
            watch=examples.watch,
        )
        self._validation = {"round": round_number, "dice": scores["dice"], "mdsc": scores["mdsc"]}
        if self._best is None or scores["mdsc"] > self._best:
            self._best = scores["mdsc"]
            self._save(BEST, round_number)
            self._noted().better(examples)

    def _save(self, name: str, round_number: int) -> None:
        """Writes a model, and its card unless there is a better one."""
        path = self.folder / name
        save_model(path, self._network, About.of(self.name, self.settings, round_number, self._validation))
        if name == BEST or not (self.folder / BEST).is_file():
            self._write_card(path, round_number, self._validation)

    def _write_card(self, model: Path, round_number: int, validation: dict | None, test: dict | None = None) -> None:
        write_model_card(
            model,
            owner=self.name,
            settings=self.settings,
            modalities=self.data.modalities,
            cases=self.data.counts(),
            source=self.data.source,
            round_number=round_number,
            validation=validation,
            test=test,
        )

    def _keep(self, round_number: int) -> None:
        content = {
            "settings": self.settings.model_dump(mode="json"),
            "round": round_number,
            "modalities": list(self.data.modalities),
            "network": {key: value.cpu() for key, value in self._network.state_dict().items()},
            "parameters": [name for name, _ in self._network.named_parameters()],
            "anchors": self._network.anchors,
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "validation": self._validation,
        }
        save_tensors(self._state_file(round_number), content)
        # Without validation there is no best model: the last one has to be there whenever the site is tested.
        if round_number == self.settings.rounds or not self.data.validation:
            self._save(LAST, round_number)
        keep = {round_number, max((number for number in self._kept() if number < round_number), default=round_number)}
        for number in set(self._kept()) - keep:
            self._state_file(number).unlink(missing_ok=True)
        self._round = round_number

    def _state_file(self, round_number: int) -> Path:
        return self.folder / f"state_{round_number:05d}.pt"

    def _kept(self) -> list[int]:
        return [int(path.stem.removeprefix("state_")) for path in self.folder.glob("state_?????.pt")]

    def _restore(self, path: Path) -> None:
        content = load_tensors(path)
        missing = [key for key in ("modalities", "parameters") if key not in content]
        if missing:
            raise CheckpointError(
                f"{path}: {missing[0]} is missing: it was written by an older version of fedmepd; use another run name"
            )
        # The data may have gained or lost modalities since; their encoders come from the server anyway.
        changed = set(content["modalities"]) ^ set(self.data.modalities)
        others = tuple(f"encoders.{modality}." for modality in changed)
        shapes = {key: value.shape for key, value in self._network.state_dict().items()}
        found = {key: value.shape for key, value in content["network"].items()}
        for key in sorted(shapes.keys() | found.keys()):
            if shapes.get(key) != found.get(key) and not key.startswith(others):
                raise CheckpointError(
                    f"{path}: {key} does not fit this run (width {self.settings.network.width}, modalities "
                    f"{', '.join(self.data.modalities)}): it was written with other settings; use another run name"
                )
        kept = {key: value for key, value in content["network"].items() if key in shapes}
        self._network.load_state_dict(kept, strict=False)
        self._network.anchors = content["anchors"]
        self._restore_optimizer(content["optimizer"], content["parameters"])
        self._best, self._validation = content["best"], content["validation"]
        self._round = content["round"]
        self.log(f"{self.name}: continues from its state after round {self._round}")
        if changed:
            # The best model so far was measured on, and fits, other images.
            self._best, self._validation = None, None
            self.log(f"{self.name}: now has {' '.join(self.data.modalities)}, not {' '.join(content['modalities'])}")

    def _restore_optimizer(self, content: dict[str, Any], names: list[str]) -> None:
        """Gives every parameter its own state back, by name: there may be others before it now."""
        of_name = {names[index]: state for index, state in content["state"].items()}
        present = [name for name, _ in self._network.named_parameters()]
        states = {index: of_name[name] for index, name in enumerate(present) if name in of_name}
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})


def _personal_filters(payload: Payload) -> dict[str, int]:
    """Number of personal filters of each convolution, by the patience that the server sent."""
    prefix = f"patience.{DECODER}"
    return {
        key.removeprefix(prefix): int((values == 0).sum())
        for key, values in payload.tensors.items()
        if key.startswith(prefix)
    }


def validation_is_due(settings: Settings, round_number: int) -> bool:
    """Whether a round ends with a validation."""
    return round_number % settings.evaluation.every == 0 or round_number == settings.rounds
