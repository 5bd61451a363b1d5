"""The folder of a run in FLARE's simulator, which removes its content when a run starts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fedmepd.config import Settings
from fedmepd.errors import FedMEPDError
from fedmepd.job_settings import make_settings
from fedmepd.storage import locked

# Configuration, which the simulator keeps.
_KEPT = ("local", "startup")
# Files that would be lost, below the folders of the server and of every site. A run without them left only logs.
_PRODUCED = ("simulate_job/results/*", "simulate_job/fedmepd/**/*.pt")
_CONFIG = "server/simulate_job/app_server/config/config_fed_server.json"


@contextmanager
def reserved(folder: Path, settings: Settings) -> Iterator[None]:
    """Reserves a run's folder for this process, if the simulator may empty it.

    The simulator may empty a folder that does not exist or is empty, one whose run left only logs, and one that holds
    this same run: a named run keeps its state elsewhere (:mod:`fedmepd.flare.folders`) and writes all of its results
    again when it continues.

    Args:
        folder: of the run.
        settings: of the run.

    Raises:
        FedMEPDError: the folder holds another run, a run in progress or something else, it cannot be written, or
            FLARE cannot work with its path.
    """
    require_no_blank(folder)
    with alone_in(folder):
        _check(folder, settings)
        yield


def require_no_blank(folder: Path) -> None:
    """Raises :class:`~fedmepd.errors.FedMEPDError` if FLARE cannot work with the path of a run's folder."""
    for place in (folder, Path(tempfile.gettempdir())):
        if any(letter.isspace() for letter in str(place)):
            raise FedMEPDError(
                f"{str(place)!r} has a blank in it, at which FLARE's simulator cuts its commands: choose a --workspace "
                "and, for temporary files, a TMPDIR without blanks"
            )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes from running in a folder, until this one leaves it or ends.

    Raises:
        FedMEPDError: a run is under way there, or the folder cannot be written.
    """
    under_way = f"a run is under way in {folder}: wait for its end, or name another --workspace for this one"
    with locked(folder.with_name(f".{folder.name}.lock"), under_way):
        # Whoever was killed has left its lock, but not the simulator that it had started.
        if left := _simulators(folder):
            raise FedMEPDError(f"{under_way}; if nobody waits for it, end its processes: kill {' '.join(left)}")
        yield


def _simulators(folder: Path) -> list[str]:
    """The numbers of FLARE's processes that work in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        ours = any(f"{word}/".startswith(f"{folder}/") for word in words)
        if ours and any("nvflare" in word for word in words):
            found.append(str(process.pid))
    return found


def _check(folder: Path, settings: Settings) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FedMEPDError(f"{folder} is a file: name another --workspace")
    # The simulator writes a log in every folder that it makes.
    others = [path.name for path in folder.iterdir() if path.name not in _KEPT and not (path / "log.txt").is_file()]
    produced = any(True for pattern in _PRODUCED for _ in folder.glob(f"*/{pattern}"))
    if not produced and not others:
        return
    if not others and settings.run_name and _settings_of_run(folder) == settings:
        return
    what = "the results of another run" if not others else f"something else ({min(others)})"
    raise FedMEPDError(
        f"{folder} holds {what}, and FLARE's simulator removes all that is there: name another --workspace, or remove "
        "that folder yourself. A run that is to be continued needs a --run-name from its start, and the same settings"
    )


def _settings_of_run(folder: Path) -> Settings | None:
    """The settings of the run that was started last in a folder, or None if they are unknown."""
    try:
        [workflow] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["workflows"]
        return make_settings(workflow["args"]["preset"], workflow["args"]["settings"])
    except (OSError, ValueError, KeyError, TypeError, FedMEPDError):
        return None
