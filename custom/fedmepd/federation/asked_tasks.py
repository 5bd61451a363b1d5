"""How often a server has asked a participant for the same again, on disk: an honest one does so after a restart."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmepd.errors import CheckpointError, explain
from fedmepd.site_limits import Limits
from fedmepd.storage import has_file, read_json, write_json

FILE_NAME = "asked.json"


class _Kind(BaseModel):
    """Of one kind of task: the newest round, and how many tasks were for no newer one."""

    model_config = ConfigDict(extra="forbid")

    newest: int = Field(ge=0)
    again: int = Field(0, ge=0)


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kinds: dict[str, _Kind] = {}


class AskedTasks:
    """Counts the tasks of a run that ask for a round once more, by kind, also over restarts of the participant.

    Args:
        folder: of the participant's state in the run.
        limits: of its machine.
    """

    def __init__(self, folder: Path, limits: Limits):
        self._file, self._limits = Path(folder) / FILE_NAME, limits

    def note(self, kind: str, round_number: int) -> None:
        """Notes a task before it is done.

        Args:
            kind: of the task.
            round_number: that it is for; 0 where it is for none.

        Raises:
            SettingsError: the site has been asked for the same too often.
            CheckpointError: what was noted cannot be read.
            FedMEPDError: it cannot be noted.
        """
        kinds = self._read().kinds
        known = kinds.get(kind)
        if known is None or round_number > known.newest:
            again = 0 if known is None else known.again
            kinds[kind] = _Kind(newest=round_number, again=again)
        else:
            self._limits.check_repeats(kind, known.again + 1)
            kinds[kind] = _Kind(newest=known.newest, again=known.again + 1)
        write_json(self._file, _Content(kinds=kinds).model_dump())

    def _read(self) -> _Content:
        if not has_file(self._file, CheckpointError, ": restore it"):
            return _Content()
        found = read_json(self._file, "the tasks of a run", CheckpointError)
        try:
            return _Content.model_validate(found)
        except ValidationError as error:
            public = "the count of the run's tasks cannot be used"
            raise CheckpointError(f"{explain(error, str(self._file))}: restore the file", public=public) from error
