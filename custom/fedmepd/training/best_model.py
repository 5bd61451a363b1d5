"""The models that somebody keeps of a run: the best one on validation, the last one, and their card."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fedmepd.errors import CheckpointError, FedMEPDError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.checkpoints import About, describe, save_model

Scores = dict[str, Any]


class WriteCard(Protocol):
    """Writes the card of a model file."""

    def __call__(
        self, model: Path, *, round_number: int, validation: Scores | None, test: Scores | None = None
    ) -> None: ...


class ModelFiles:
    """Two model files in a folder, of which the best one is tested.

    Args:
        folder: for the files.
        best, last: their names.
        about: what a model says of itself, by its round and its validation.
        write_card: for the better of the two.

    Attributes:
        score: mean Dice of the best model on validation; None as long as there is none.
    """

    def __init__(
        self,
        folder: Path,
        best: str,
        last: str,
        about: Callable[[int, Scores | None], About],
        write_card: WriteCard,
    ):
        self._best, self._last = Path(folder) / best, Path(folder) / last
        self._about, self._write_card = about, write_card
        self.score: float | None = None

    def offer(self, network: FedMEPDNet, round_number: int, validation: Scores) -> bool:
        """Keeps a model if it is better than the best one so far; returns whether it is.

        Where a site withholds a region, the mean of the others is another measure: scores of more regions win.
        """
        kept = self._kept()
        if self.score is not None and kept and _rank(validation) <= _rank(kept["about"]["scores"]):
            return False
        self.score = validation["mdsc"]
        save_model(self._best, network, self._about(round_number, validation))
        self._write_card(self._best, round_number=round_number, validation=validation)
        return True

    def recall(self, modalities: Sequence[str]) -> None:
        """Begins with the best model that is there, if it is for these modalities.

        Whoever asks for the first round once more, with other weights, is not to have a worse model replace it.
        """
        kept = self._kept()
        same = kept is not None and list(kept["modalities"]) == list(modalities)
        self.score = kept["about"]["scores"]["mdsc"] if same else None

    def _kept(self) -> dict[str, Any] | None:
        """What the best model's file says; None without one that can be read."""
        with contextlib.suppress(CheckpointError):
            kept = describe(self._best)
            return kept if kept["about"]["scores"] else None
        return None

    def keep_last(self, network: FedMEPDNet, round_number: int, validation: Scores | None) -> None:
        """Keeps a model as the last one. Where nothing is validated, it is the one that is tested."""
        save_model(self._last, network, self._about(round_number, validation))
        if not self._best.is_file():
            self._write_card(self._last, round_number=round_number, validation=validation)

    def any(self) -> bool:
        """Whether there is a model."""
        return self._best.is_file() or self._last.is_file()

    def tested(self) -> Path:
        """The file of the model to test.

        Raises:
            FedMEPDError: there is no model yet.
        """
        path = self._best if self._best.is_file() else self._last
        if not path.is_file():
            message = "no model to test: no round of this run is finished"
            raise FedMEPDError(f"{path}: {message}", public=message)
        return path

    def end_test(self, scores: Scores | None) -> int:
        """Notes the test's scores on the card; returns the round of the model that was tested."""
        path = self.tested()
        about = describe(path)["about"]
        self._write_card(path, round_number=about["round"], validation=about["scores"], test=scores)
        return about["round"]


def _rank(validation: Scores) -> tuple[int, float]:
    return len(validation["dice"]), validation["mdsc"]
