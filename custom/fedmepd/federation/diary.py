"""What a site notes for its own people: curves, pictures, ``site.json``. Training does without, and goes on without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedmepd.config import Settings
from fedmepd.data.site import SiteData
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import site_results
from fedmepd.federation.board import Board
from fedmepd.federation.records import personal_step
from fedmepd.segmentation.examples import Examples
from fedmepd.storage import write_json

BOARD = "tb_events"
OVERLAYS = "overlays"


class Diary:
    """Writes ``site.json``, the site's TensorBoard and its pictures, after every round and after the test.

    What cannot be written is said in the site's log, and nothing else happens.

    Args:
        name: the site's.
        settings: the job's.
        data: the site's cases.
        folder: the site's, for this run.
        filters: number of filters of each of the decoder's convolutions, where filters may become personal.
        log: takes lines about what could not be written.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        data: SiteData,
        folder: Path,
        filters: dict[str, int],
        log: Callable[[str], None],
    ):
        self._data, self._settings, self._folder, self._log = data, settings, folder, log
        self._board = Board(folder / BOARD, name)
        self._content = site_results.build(name, settings, data.modalities, data.counts(), filters)
        self._pictures: dict[str, Path] = {}
        file = folder / site_results.FILE_NAME
        if file.is_file():
            try:
                kept = site_results.read(file)
                self._content |= {key: kept[key] for key in ("round", "history")}
            except FedMEPDError as error:
                self._log(f"{name}: the curves so far are lost: {error}")

    def rewind(self, round_number: int) -> None:
        """Forgets the rounds after one, since the site goes on from there."""
        history = self._content["history"]
        for kind in ("validation", "rounds"):
            history[kind] = [entry for entry in history[kind] if entry["round"] <= round_number]
        for layer, steps in history["personal"].items():
            history["personal"][layer] = [step for step in steps if step[0] <= round_number]
        self._content["round"] = min(self._content["round"], round_number)

    def validation_examples(self) -> Examples:
        """To watch the validation with."""
        return Examples(self._data.validation, self._settings, self._data.cache, self._data.modalities)

    def better(self, examples: Examples) -> None:
        """Draws the median case of a validation that found a better model."""

        def draw() -> None:
            if examples.draw(self._folder / OVERLAYS / "validation", ("median",)):
                self._pictures = {"overlay_validation": self._folder / OVERLAYS / "validation" / "median.png"}

        self._attempt(draw)

    def end_round(
        self, round_number: int, losses: dict[str, float], validation: dict[str, Any] | None, personal: dict[str, int]
    ) -> None:
        """Notes a round.

        Args:
            round_number: the round.
            losses: means over its steps.
            validation: scores, or None.
            personal: number of personal filters by convolution.
        """
        history = self._content["history"]
        history["rounds"].append({"round": round_number, **losses})
        figures = {f"loss_{name}": value for name, value in losses.items()}
        if validation:
            history["validation"].append(validation)
            figures |= {f"validation_dice_{region}": value for region, value in validation["dice"].items()}
            figures["validation_mdsc"] = validation["mdsc"]
        for layer, count in personal.items():
            personal_step(history["personal"], layer, round_number, count)
        filters = self._content["filters"]
        if filters:
            figures["personal_share"] = sum(personal.values()) / sum(filters.values())
        self._content["round"] = round_number
        self._write(round_number, figures)

    def end_test(self, scores: dict[str, Any] | None, selected_round: int, examples: Examples) -> None:
        """Notes the final test, with pictures of the best, the median and the worst case."""
        drawn: dict[str, float] = {}
        self._attempt(lambda: drawn.update(examples.draw(self._folder / OVERLAYS)))
        self._pictures = {f"overlay_{kind}": self._folder / OVERLAYS / f"{kind}.png" for kind in drawn}
        self._content |= {"status": "finished", "test": scores, "selected_round": selected_round, "examples": drawn}
        figures = {f"test_dice_{region}": value for region, value in scores["dice"].items()} if scores else {}
        self._write(self._content["round"], figures)

    def test_examples(self) -> Examples:
        """To watch the final test with."""
        return Examples(self._data.test, self._settings, self._data.cache, self._data.modalities)

    def _write(self, round_number: int, figures: dict[str, float]) -> None:
        pictures, self._pictures = self._pictures, {}
        self._attempt(lambda: write_json(self._folder / site_results.FILE_NAME, self._content))
        self._attempt(lambda: self._board.write(round_number, figures, pictures))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, FedMEPDError) as error:
            self._log(f"{self._content['name']}: goes on without its own curves and pictures of this round: {error}")
