"""Figures to MLflow; needs the package ``mlflow`` at the server."""

from __future__ import annotations

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.tracking.mlflow.mlflow_receiver import MLflowReceiver

from fedmepd.flare.tracking import AsOneParticipant


class MLflowTracking(MLflowReceiver):
    """One run of the experiment ``fedmepd`` for every job.

    Args:
        tracking_uri: of MLflow's server; None: a file ``mlflow.db`` in the folder of the job's results.
    """

    def __init__(self, tracking_uri: str | None = None):
        names = {"experiment_name": "fedmepd", "run_name": "fedmepd"}
        super().__init__(tracking_uri, names, events=[ANALYTIC_EVENT_TYPE])

    def initialize(self, fl_ctx: FLContext) -> None:
        """Starts the run."""
        super().initialize(AsOneParticipant(fl_ctx))
