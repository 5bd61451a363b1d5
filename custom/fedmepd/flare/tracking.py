"""A job's curves in MLflow or Weights & Biases too: FLARE's receivers, added to an exported job's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import ProcessType
from nvflare.apis.fl_context import FLContext

from fedmepd.closest import one_of
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.storage import read_json, write_json

# By tracker: the component that receives the figures.
TRACKERS = {
    "mlflow": "fedmepd.flare.tracking_mlflow.MLflowTracking",
    "wandb": "fedmepd.flare.tracking_wandb.WandBTracking",
}


def add_tracking(job_folder: Path, tracker: str, uri: str = "") -> None:
    """Lets the server of a job send its figures to an experiment tracker, beside TensorBoard.

    The figures are those of TensorBoard: means and counts of every round, by site. No picture, case or file is sent.

    Args:
        job_folder: the job, which is changed.
        tracker: ``mlflow`` or ``wandb``.
        uri: of MLflow's server; empty: a file ``mlflow.db`` in the folder of the job's results.

    Raises:
        SettingsError: there is no such tracker, or it takes no address.
        FedMEPDError: the folder is no job, or has that tracker already.
    """
    if tracker not in TRACKERS:
        raise SettingsError(f"--tracking {tracker}: {one_of(tracker, TRACKERS)}")
    if uri and tracker != "mlflow":
        raise SettingsError(f"--tracking-uri {uri}: {tracker} takes its server from the variable WANDB_BASE_URL")
    files = sorted(job_folder.glob("*/config/config_fed_server.json"))
    if not files:
        raise FedMEPDError(f"{job_folder} is no job: expected app/config/config_fed_server.json in it")
    for file in files:
        content = read_json(file, "a job's configuration")
        components = content.setdefault("components", [])
        if any(component.get("id") == tracker for component in components):
            raise FedMEPDError(f"{file} has a component {tracker} already: name another job")
        components.append({"id": tracker, "path": TRACKERS[tracker], "args": {"tracking_uri": uri} if uri else {}})
        write_json(file, content)


class AsOneParticipant:
    """A FLARE context of the server whose receiver keeps one run, that of the server.

    FLARE's receivers make a run for every site at the server, for figures that the sites send. In this package the
    server alone sends figures, those of all sites.

    Args:
        fl_ctx: FLARE's context.
    """

    def __init__(self, fl_ctx: FLContext):
        self._fl_ctx = fl_ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fl_ctx, name)

    def get_process_type(self) -> str:
        """That of a site, whose receiver keeps the figures of its own process alone."""
        return ProcessType.CLIENT_JOB
