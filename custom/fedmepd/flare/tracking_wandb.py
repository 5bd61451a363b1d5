"""Figures to Weights & Biases; needs the package ``wandb`` at the server."""

from __future__ import annotations

import os

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.tracking.wandb.wandb_receiver import WandBReceiver

from fedmepd.flare.tracking import AsOneParticipant


class WandBTracking(WandBReceiver):
    """One run of the project ``fedmepd`` for every job.

    Runs are written into the server's folder and sent nowhere, unless the environment variable ``WANDB_MODE`` of the
    server is ``online``. ``wandb sync`` sends what was written.
    """

    def __init__(self) -> None:
        names = {"project": "fedmepd", "name": "fedmepd", "group": "fedmepd", "job_type": "federation"}
        super().__init__(names, os.environ.get("WANDB_MODE", "offline"), events=[ANALYTIC_EVENT_TYPE])

    def initialize(self, fl_ctx: FLContext) -> None:
        """Starts the run."""
        super().initialize(AsOneParticipant(fl_ctx))
