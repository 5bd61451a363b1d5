"""Following a job from outside: its rounds as lines, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.progress import lines_about

COMPLETED = "FINISHED:COMPLETED"

_ENDED = {
    COMPLETED: "finished",
    "FINISHED:ABORTED": "it was aborted",
}


def watch(
    ask: Callable[..., dict[str, Any]],
    job_id: str,
    log: Callable[[str], None],
    poll_seconds: float,
) -> str:
    """Reports a job's rounds until it ends; returns FLARE's word for how.

    Args:
        ask: runs a FLARE command with these arguments; returns its data.
        job_id: the job's.
        log: takes a line for every round, and one for the end.
        poll_seconds: between two questions how far the job is.

    Raises:
        FlareError: there is no such job, or the server does not answer any more.
    """
    told: set[str] = set()
    while True:
        try:
            stats = ask("job", "stats", job_id)["stats"].get("server", {})
        except FlareError as error:
            # Not yet, not any more, or just being put away.
            if error.code not in ("JOB_NOT_RUNNING", "JOB_NOT_FOUND"):
                raise
            status = ask("job", "meta", job_id)["status"]
            if status.startswith("FINISHED"):
                log(f"job {job_id}: {_ENDED.get(status, status)}")
                return status
            stats = {}
        for event, line in lines_about(stats.get("FedMEPDController") or {}).items():
            # Scores and shares of filters move on while a round's line still stands.
            if event not in told:
                told.add(event)
                log(line)
        time.sleep(poll_seconds)
