"""A site's own TensorBoard: its curves, and pictures of its cases, which the server's must not have."""

from __future__ import annotations

from pathlib import Path


class Board:
    """Writes event files; opened with the first round that is written.

    Not by way of FLARE's analytics events: a job could send those to the server, and pictures must stay.

    Args:
        folder: for the event files.
        site: the site's name, the first part of every tag, as in the server's TensorBoard.
    """

    def __init__(self, folder: Path, site: str):
        self._folder = folder
        self._site = site
        self._writer = None

    def write(self, round_number: int, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        """Adds a round.

        Args:
            round_number: the round.
            figures: by the rest of the tag.
            pictures: PNG files by the rest of the tag.

        Raises:
            OSError: it cannot be written; the next round begins a new file.
        """
        # Late: most of a second, and nothing that training needs.
        from torch.utils.tensorboard import SummaryWriter

        # What a run that broke off wrote of later rounds counts no more.
        writer = self._writer or SummaryWriter(str(self._folder), purge_step=round_number)
        # TensorBoard's writer never recovers from a failure.
        self._writer = None
        for name, value in figures.items():
            writer.add_scalar(f"{self._site}/{name}", value, round_number)
        if pictures:
            from matplotlib.image import imread
        for name, file in pictures.items():
            writer.add_image(f"{self._site}/{name}", imread(file), round_number, dataformats="HWC")
        writer.flush()
        self._writer = writer
