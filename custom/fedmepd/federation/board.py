"""A site's own TensorBoard: its curves, and pictures of its cases, which the server's must not have."""

from __future__ import annotations

from pathlib import Path

from fedmepd.federation.charts import chart_of


class Board:
    """Writes event files; opened with the first round that is written.

    Not by way of FLARE's analytics events: a job could send those to the server, and pictures must stay.

    Args:
        folder: for the event files; they are in a run of the site's name, as in the server's TensorBoard.
        site: the site's name.
    """

    def __init__(self, folder: Path, site: str):
        self._folder = folder
        self._site = site
        self._writer = None

    def write(self, round_number: int, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        """Adds a round.

        Args:
            round_number: the round.
            figures: by name, see :func:`~fedmepd.federation.charts.chart_of`.
            pictures: PNG files by name.

        Raises:
            OSError: it cannot be written; the next round begins a new file.
        """
        # Late: most of a second, and nothing that training needs.
        from torch.utils.tensorboard import SummaryWriter

        # What a run that broke off wrote of later rounds counts no more.
        run = self._folder / self._site
        writer = self._writer or SummaryWriter(str(run), purge_step=round_number)
        # TensorBoard's writer never recovers from a failure.
        self._writer = None
        for name, value in figures.items():
            writer.add_scalar(self._tag(name), value, round_number)
        if pictures:
            from matplotlib.image import imread
        for name, file in pictures.items():
            writer.add_image(self._tag(name), imread(file), round_number, dataformats="HWC")
        writer.flush()
        self._writer = writer

    def _tag(self, name: str) -> str:
        return chart_of(f"{self._site}/{name}")[1]
