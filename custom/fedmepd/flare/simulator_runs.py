"""The folders of the simulator's runs in a workspace: each run has its own, and none is used for another run.

``<workspace>/<run>`` is what FLARE's simulator writes. ``<workspace>/<run>_runs`` holds what has to outlive it, since
the simulator empties its folder when it starts: the run's state (:mod:`fedmepd.flare.folders`), what the run was
started with, and what earlier parts of an interrupted run have left. ``<workspace>/latest`` leads to the run that was
started last.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fedmepd.closest import did_you_mean, like_path
from fedmepd.config import differences
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.job_settings import make_settings
from fedmepd.storage import read_json, write_json
from fedmepd.text_table import natural_order

LATEST = "latest"

_JOB = "job.json"
_SERIES = "series.json"
_MOST_NAMED = 5
_RESULTS = Path("server", "simulate_job", "results")


@dataclass(frozen=True)
class StartedWith:
    """What a run was started with, and goes on with.

    Attributes:
        preset, settings: of the job, see :func:`fedmepd.job_settings.make_settings`.
        sites: the sites' names.
        data: folder of the federation's data; None: phantoms, or what the environment says.
    """

    preset: str
    settings: dict[str, Any]
    sites: list[str]
    data: str | None

    def differences(self, other: StartedWith) -> list[str]:
        """Returns a text for each thing in which another start differs from this one."""
        found = differences({"sites": self.sites, "data": self.data}, {"sites": other.sites, "data": other.data})
        ours, theirs = (make_settings(one.preset, one.settings).model_dump(mode="json") for one in (self, other))
        return found + differences(ours, theirs)


@dataclass(frozen=True)
class Progress:
    """How far a run is: the last finished round, of how many, and whether the run is finished."""

    round: int
    rounds: int
    finished: bool


class SimulatorRun:
    """A run's folder.

    Args:
        folder: ``<workspace>/<run>``; need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.kept = folder.with_name(f"{folder.name}_runs")

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def results(self) -> Path:
        """The folder with the run's results."""
        return self.folder / _RESULTS

    def started_with(self) -> StartedWith:
        """Returns what the run was started with.

        Raises:
            FedMEPDError: there is no such run, or its file is damaged.
        """
        if not self.exists:
            others = can_go_on(self.folder.parent, like=self.name)
            raise FedMEPDError(f"there is no run {self.name} to go on with: {self.kept / _JOB} does not exist{others}")
        content = read_json(self.kept / _JOB, "what a run was started with")
        try:
            return StartedWith(**{field.name: content[field.name] for field in fields(StartedWith)})
        except KeyError as error:
            raise FedMEPDError(f"{self.kept / _JOB} is damaged: {error} is missing") from error

    def claim(self, started: StartedWith) -> bool:
        """Makes the folder this run's; returns whether it was free.

        Raises:
            FedMEPDError: it cannot be written, or the run cannot have these settings, its name among them.
        """
        make_settings(started.preset, started.settings)
        if self.name == LATEST:
            raise FedMEPDError(f"a run cannot be named {LATEST}: that leads to the run that was started last")
        if self.folder.exists() or self.folder.is_symlink():
            return False
        try:
            # Whoever makes it has the name, also of several processes that begin at the same time.
            self.kept.mkdir(parents=True)
        except FileExistsError:
            return False
        except OSError as error:
            raise FedMEPDError(
                f"{self.kept} cannot be written: {error.strerror}; choose another --workspace"
            ) from error
        write_json(self.kept / _JOB, asdict(started))
        return True

    @property
    def exists(self) -> bool:
        """Whether a run of this name has been started here."""
        return (self.kept / _JOB).is_file()

    def following(self) -> list[SimulatorRun]:
        """Returns the runs that one command has asked for after this one."""
        with contextlib.suppress(FedMEPDError):
            names = read_json(self.kept / _SERIES, "the names of runs", kinds=(list,))
            # A run that somebody has renamed is none of them.
            later = names[names.index(self.name) + 1 :] if self.name in names else []
            runs = (SimulatorRun(self.folder.parent / name) for name in later if isinstance(name, str))
            return [run for run in runs if run.exists]
        return []

    def progress(self) -> Progress | None:
        """Returns how far the run is; None if no round is finished, round 0 included."""
        # A part that goes on has none before its first round is over.
        earlier = sorted(self.kept.glob("part-*"), key=lambda path: natural_order(path.name), reverse=True)
        for part in (self.folder, *earlier):
            with contextlib.suppress(FedMEPDError):
                found = results.read(part / _RESULTS / results.FILE_NAME)
                return Progress(found["round"], found["rounds"], found["status"] == "finished")
        return None

    def set_aside(self) -> Path | None:
        """Moves what the interrupted part of the run has left, logs and curves; returns where it is.

        The state and the models are elsewhere, and the part that goes on has all results again.
        """
        if not self.folder.exists():
            return None
        number = 1
        while (part := self.kept / f"part-{number}").exists():
            number += 1
        self.folder.rename(part)
        return part

    def become_latest(self) -> None:
        """Lets ``<workspace>/latest`` lead here, unless somebody else has made something of that name."""
        latest = self.folder.with_name(LATEST)
        if latest.exists() and not latest.is_symlink():
            return
        new = latest.with_name(f".{LATEST}.{uuid.uuid4().hex}")
        # Not every file system has links.
        with contextlib.suppress(OSError):
            new.symlink_to(self.folder.name)
            os.replace(new, latest)


def new_run(workspace: Path, name: str, started: StartedWith) -> SimulatorRun:
    """Returns a run of its own in ``<workspace>/<name>-<number>``, with the first number that is free.

    Raises:
        FedMEPDError: the workspace cannot be written.
    """
    for number in itertools.count(1):
        run = SimulatorRun(workspace / f"{name}-{number}")
        named = StartedWith(started.preset, started.settings | {"run_name": run.name}, started.sites, started.data)
        if run.claim(named):
            return run


def note_series(runs: Sequence[SimulatorRun]) -> None:
    """Notes that one command has asked for these runs, so that whoever goes on with one can go on with the others."""
    for run in runs:
        write_json(run.kept / _SERIES, [one.name for one in runs])


def latest_run(workspace: Path) -> SimulatorRun:
    """Returns the run that was started last.

    Raises:
        FedMEPDError: there is none.
    """
    latest = workspace / LATEST
    if not latest.is_symlink():
        others = can_go_on(workspace) or like_path(workspace)
        raise FedMEPDError(f"{workspace} holds no run to go on with: name its --workspace, or its --run-name{others}")
    return SimulatorRun(workspace / os.readlink(latest))


def can_go_on(workspace: Path, like: str = "") -> str:
    """Returns the end of a sentence that names the newest runs of a workspace that are not finished, at most five.

    Args:
        workspace: need not exist.
        like: a name that no run has; the names that are most like it are proposed.
    """
    kept = sorted(workspace.glob(f"*_runs/{_JOB}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    runs = [SimulatorRun(workspace / file.parent.name.removesuffix("_runs")) for file in kept]
    unfinished = ((run.name, done) for run in runs if not ((done := run.progress()) and done.finished))
    said = [
        f"{name} (round {done.round} of {done.rounds})" if done else f"{name} (no round is finished)"
        for name, done in itertools.islice(unfinished, _MOST_NAMED)
    ]
    newest = f"; the newest that can go on: {', '.join(said)}" if said else ""
    return newest + did_you_mean(like, [run.name for run in runs])
