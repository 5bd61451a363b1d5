"""The server's state of a run on disk, and the check that it fits the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd import __version__
from fedmepd.config import Settings, differences
from fedmepd.errors import CheckpointError
from fedmepd.job_settings import of_this_version
from fedmepd.storage import load_tensors, remove_leftovers, save_tensors

FILE_NAME = "server_state.pt"
# To be raised by whoever changes what the state holds.
FORMAT = 5
# Whose files do not say which version wrote them.
_OLD_FORMATS = "0.1.0"


class ServerState:
    """One file, written atomically after every round.

    Args:
        folder: of the run on the server.
        settings: of the job.
    """

    def __init__(self, folder: Path, settings: Settings):
        self._folder, self._settings = Path(folder), settings

    def save(self, content: dict[str, Any]) -> None:
        """Writes the state, in place of the old one."""
        marks = {"format": FORMAT, "version": __version__, "settings": self._settings.model_dump(mode="json")}
        save_tensors(self._folder / FILE_NAME, marks | content, read_back=True)

    def load(self) -> dict[str, Any] | None:
        """Returns the state of the run; None for a new run.

        Raises:
            CheckpointError: it cannot be read, or was written by another version or with other settings.
        """
        path = self._folder / FILE_NAME
        remove_leftovers(self._folder)
        if not path.is_file():
            return None
        content = load_tensors(path)
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} was written by fedmepd {content.get('version', _OLD_FORMATS)}, which keeps its state "
                f"differently from this version, {__version__}: go on with that version, or choose another run name"
            )
        self._check_settings(path, content["settings"])
        return content

    def _check_settings(self, path: Path, kept: dict[str, Any]) -> None:
        different = differences(of_this_version(kept), self._settings.model_dump(mode="json"))
        if different:
            raise CheckpointError(
                f"run {self._settings.run_name!r} was started with other settings ({path}): {'; '.join(different)}. "
                "Start it with the same settings, or under another run_name."
            )
