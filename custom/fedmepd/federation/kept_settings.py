"""A run's settings at a site: those of its first task hold for all others.

They decide which cases train and which test. A server that changed them between two tests of one model could have the
means over nearly the same cases, and so the score of the one case in which they differ.
"""

from __future__ import annotations

from pathlib import Path

from fedmepd.config import Settings, differences
from fedmepd.errors import CheckpointError, FedMEPDError, plain_text
from fedmepd.job_settings import of_this_version
from fedmepd.storage import read_json, write_json

FILE_NAME = "settings.json"


def hold_to(folder: Path, settings: Settings) -> None:
    """Notes the settings of a run with its first task, and refuses a later one that comes with others.

    Args:
        folder: of the site's state in the run.
        settings: that the task came with.

    Raises:
        FedMEPDError: they are others; or they cannot be noted.
        CheckpointError: what was noted cannot be read.
    """
    path, now = Path(folder) / FILE_NAME, settings.model_dump(mode="json")
    if not path.is_file():
        write_json(path, now)
        return
    kept = read_json(path, "the settings of a run", CheckpointError)
    if different := differences(of_this_version(kept), now):
        told = plain_text(f"the server has changed the settings of the run: {'; '.join(different)}")
        raise FedMEPDError(f"{told}: another run needs another run_name ({path})", public=told)
