"""The federation's full-modal model at the server: its files, its card, its scores at the fusion site."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.federation.cross_site import SERVER, copy_of
from fedmepd.federation.exchange import ModelCopy, Tested
from fedmepd.federation.fusion_site import Abort, Fusion
from fedmepd.federation.model_card import FILE_NAME as CARD
from fedmepd.federation.model_card import write_model_card
from fedmepd.methods.method import AtServer, Tensors
from fedmepd.methods.parts.selection import ANCHORS, SEGMENTING, parts
from fedmepd.networks.build import build_network
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import copy_file
from fedmepd.training.best_model import ModelFiles
from fedmepd.training.checkpoints import About, load_model

BEST = "global_best.pt"
LAST = "global_last.pt"


class GlobalModel:
    """Keeps the best global model on validation and the last one.

    Args:
        settings: of the job.
        fusion: has the cases to validate and to test on.
        folder: for the files.
        privacy: returns what the participant with the largest epsilon has spent, see
            :meth:`fedmepd.federation.records.Records.privacy`.
    """

    def __init__(
        self,
        settings: Settings,
        fusion: Fusion,
        folder: Path,
        privacy: Callable[[], dict[str, Any] | None] = lambda: None,
    ):
        self._fusion, self._folder = fusion, Path(folder)
        self._network = build_network(settings).start(settings.seed)
        profile = fusion.profile
        card = partial(
            write_model_card,
            owner=SERVER,
            settings=settings,
            modalities=profile.modalities,
            cases=profile.cases,
            phantoms=fusion.phantoms,
            cohort=settings.data.cohort(profile.source),
            privacy=privacy,
        )
        about = partial(About.of, FUSION_SITE, settings, fusion.images, fusion.phantoms)
        self.files = ModelFiles(folder, BEST, LAST, about, card)

    def start(self) -> Tensors:
        """The weights of the whole network as the job begins, by name."""
        return {key: value.detach().contiguous().clone() for key, value in self._network.state_dict().items()}

    def validate(self, method: AtServer, round_number: int, abort: Abort) -> dict[str, Any] | None:
        """Scores the model after a round, and keeps it if it is the best; None without validation cases.

        Raises:
            FusionAway: the fusion site is away.
            Aborted: ``abort`` said so.
        """
        scores = self._fusion.validate(method.weights, round_number, abort)
        if scores is None:
            return None
        validation = {"round": round_number, "dice": scores["dice"], "mdsc": scores["mdsc"]}
        self.files.offer(self._of(method), round_number, validation)
        return validation

    def keep_last(self, method: AtServer, round_number: int, validation: dict[str, Any] | None) -> None:
        """Keeps the model as it is after the last round."""
        self.files.keep_last(self._of(method), round_number, validation)

    def test(self, round_number: int, abort: Abort) -> Tested:
        """Scores the model that was best on validation, without validation the last one, on the test cases.

        Raises:
            FusionAway: the fusion site is away.
            Aborted: ``abort`` said so.
        """
        weights = parts(load_model(self.files.tested()).state_dict(), SEGMENTING)
        return self._fusion.test(weights, round_number, abort)

    def copy_files(self, folder: Path) -> None:
        """Copies the model files and their card, as far as they are there and have changed, into another folder.

        Raises:
            FedMEPDError: the disk is full or the folder cannot be written.
        """
        for name in (BEST, LAST, CARD):
            if (self._folder / name).is_file():
                copy_file(self._folder / name, folder / name)

    def copy(self) -> ModelCopy:
        """The model that is tested, for the sites to test too."""
        return copy_of(load_model(self.files.tested()))

    def _of(self, method: AtServer) -> FedMEPDNet:
        self._network.load_state_dict(method.weights, strict=False)
        anchors = parts(method.anchors, (ANCHORS,))
        self._network.anchors = {int(key.removeprefix(ANCHORS)): rows for key, rows in anchors.items()}
        return self._network
