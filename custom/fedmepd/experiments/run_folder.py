"""The folder of one run of a plan: what it is to do, how far it is, why it failed.

``run.json`` says what to do. The results lie beside it, and below it in ``state`` (in one process) or ``workspace``
(simulator) everything that the run needs to go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd.config import differences
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.evaluation.results import FILE_NAME as RESULTS
from fedmepd.experiments.plan import PlannedRun
from fedmepd.job_settings import make_settings
from fedmepd.storage import read_json, write_json

LOG = "log.txt"
# What a run needs to go on, in one process and in the simulator.
STATE, WORKSPACE = "state", "workspace"

_TASK, _FAILURE = "run.json", "failure.json"
_IN_SIMULATOR = f"{WORKSPACE}/*/server/simulate_job/results/{RESULTS}"


class RunFolder:
    """One run's files.

    Args:
        path: of the folder; need not exist.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.log = self.path / LOG

    def begin(self, run: PlannedRun) -> None:
        """Writes down what is to be done; what was done before is kept.

        Raises:
            FedMEPDError: the folder cannot be written.
        """
        write_json(self.path / _TASK, _plain(run))

    def changes(self, run: PlannedRun) -> list[str]:
        """Returns how a run differs from the one that the folder holds; nothing if there is none.

        A setting that the version of the kept run did not have counts as at its default.

        Raises:
            FedMEPDError: the folder holds something else, or a run with settings that this version does not have.
        """
        if not (self.path / _TASK).is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise FedMEPDError(f"{self.path} is no run of a plan: name another folder, or remove it yourself")
            return []
        try:
            kept, now = _plain(self.planned()), _plain(run)
        except SettingsError as error:
            raise FedMEPDError(f"{self.path} was begun by another version ({error}): name another folder") from error
        # Apart, since both have a key named data.
        return differences(kept.pop("settings"), now.pop("settings")) + differences(kept, now)

    def planned(self) -> PlannedRun:
        """Returns the run that the folder holds.

        Raises:
            FedMEPDError: it holds none, or one of another version.
        """
        task = self._task()
        data = task["data"] and Path(task["data"])
        settings = make_settings("paper", task["settings"])
        return PlannedRun(self.path.name, settings, tuple(task["sites"]), data, task["engine"])

    def _task(self) -> dict[str, Any]:
        task = read_json(self.path / _TASK, "a run of `fedmepd compare run`")
        missing = [key for key in ("settings", "sites", "data", "engine") if key not in task]
        if missing:
            raise FedMEPDError(f"{self.path / _TASK}: {missing[0]} is missing: expected a run of `fedmepd compare run`")
        return task

    def results(self) -> dict[str, Any] | None:
        """Returns the results so far; None before the first round is over."""
        file = self.results_file()
        return None if file is None else read_json(file, "the results of a run")

    def results_file(self) -> Path | None:
        """Returns the results.json that is the newest; None before the first round is over."""
        if (self.path / RESULTS).is_file():
            return self.path / RESULTS
        # The simulator writes them elsewhere until the run is finished.
        return next(iter(self.path.glob(_IN_SIMULATOR)), None)

    def has_begun(self) -> bool:
        """Whether a process has begun with the first round."""
        return any((self.path / name).exists() for name in (STATE, WORKSPACE))

    def is_finished(self) -> bool:
        """Whether everything is trained and tested."""
        results = self.results()
        return results is not None and results.get("status") == "finished"

    def fail(self, reason: str) -> None:
        """Keeps why the run has failed."""
        write_json(self.path / _FAILURE, {"reason": reason})

    def forget_failure(self) -> None:
        """Begins anew after a failure."""
        (self.path / _FAILURE).unlink(missing_ok=True)

    def failure(self) -> str | None:
        """Returns why the run has failed the last time; None if it has not."""
        if not (self.path / _FAILURE).is_file():
            return None
        return str(read_json(self.path / _FAILURE, "why a run has failed").get("reason"))


def _plain(run: PlannedRun) -> dict[str, Any]:
    return {
        "settings": run.settings.model_dump(mode="json"),
        "sites": list(run.sites),
        "data": run.data and str(run.data),
        "engine": run.engine,
    }
