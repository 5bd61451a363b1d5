"""A participant's states on disk: the last round's and the one before, since a round may be asked for again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd.storage import load_tensors, remove_leftovers, save_tensors


class KeptStates:
    """Files ``state_<round>.pt`` in a folder, of which the newest two stay.

    Args:
        folder: in which nobody else writes such files.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)

    def save(self, round_number: int, content: dict[str, Any]) -> None:
        """Keeps the state after a round, and of the older ones the newest."""
        save_tensors(self._file(round_number), content)
        older = max((number for number in self._rounds() if number < round_number), default=round_number)
        for number in set(self._rounds()) - {round_number, older}:
            self._file(number).unlink(missing_ok=True)

    def newest_before(self, round_number: int) -> int | None:
        """The round of the newest state that is older than a round; None if there is none."""
        remove_leftovers(self._folder)
        return max((number for number in self._rounds() if number < round_number), default=None)

    def load(self, round_number: int) -> tuple[Path, dict[str, Any]]:
        """Returns a state, with its file for messages.

        Raises:
            CheckpointError: it cannot be read.
        """
        path = self._file(round_number)
        return path, load_tensors(path)

    def _file(self, round_number: int) -> Path:
        return self._folder / f"state_{round_number:05d}.pt"

    def _rounds(self) -> list[int]:
        return [int(path.stem.removeprefix("state_")) for path in self._folder.glob("state_?????.pt")]
