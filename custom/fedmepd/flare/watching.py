"""Following a job from outside: its rounds as lines, until it ends; and fetching its results."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedmepd.errors import LONGEST_MESSAGE, FedMEPDError, explain, plain_text
from fedmepd.flare.admin_session import AdminSession
from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.progress import Live, lines_about

COMPLETED = "FINISHED:COMPLETED"

# Jobs of a server in a message.
_MOST_NAMED = 10

_ENDED = {
    COMPLETED: "finished",
    "FINISHED:ABORTED": "it was aborted",
}


def watch(
    session: AdminSession,
    job_id: str,
    tell: Callable[[str, str, dict[str, Any]], None],
    poll_seconds: float,
) -> str:
    """Reports a job's rounds until it ends; returns FLARE's word for how.

    Args:
        session: with the server.
        job_id: the job's.
        tell: takes an event such as ``round 3`` or ``end``, a line about it, and the job's live state (``status``
            at the end).
        poll_seconds: between two questions how far the job is.

    Raises:
        FlareError: there is no such job, or the server does not answer any more.
    """
    told: set[str] = set()
    while True:
        components = session.live(job_id)
        if components is None:
            status = session.status(job_id)
            if status.startswith("FINISHED"):
                tell("end", f"job {job_id}: {_ENDED.get(status, plain_text(status))}", {"status": status})
                return status
            components = {}
        live = components.get("FedMEPDController") or {}
        for event, line in _lines(live).items():
            # Scores and shares of filters move on while a round's line still stands.
            if event not in told:
                told.add(event)
                tell(event, plain_text(line, LONGEST_MESSAGE), live)
        time.sleep(poll_seconds)


def _lines(live: dict[str, Any]) -> dict[str, str]:
    try:
        return lines_about(live)
    except ValidationError as error:
        why = explain(error, "what the server tells of its rounds", Live)
        return {"unknown": f"{why}; this computer and the server may have other versions of this package"}


def download(ask: Callable[..., dict[str, Any]], job_id: str, out: Path, log: Callable[[str], None]) -> Path:
    """Downloads a job's results from the server and returns their folder.

    Args:
        ask: runs a FLARE command with these arguments; returns its data.
        job_id: the job's.
        out: folder for the results of jobs.
        log: takes a line about what is done.

    Raises:
        FedMEPDError: they are there already, or cannot be fetched; nothing that is there is touched.
    """
    if (out / job_id).exists():
        raise FedMEPDError(f"{out / job_id} is there already: choose another --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    # Into a separate folder first, so that an interrupted download leaves nothing that looks like results.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=out) as temporary:
        fetched = Path(ask("job", "download", job_id, "-o", temporary)["path"])
        folder = out / fetched.name
        fetched.rename(folder)
    log(f"downloaded the job's results to {folder}")
    return folder


@contextmanager
def naming_jobs(ask: Callable[..., Any], job_id: str) -> Iterator[None]:
    """Adds to the error about a job that the server does not know which ones it has.

    Args:
        ask: runs a FLARE command with these arguments; returns its data.
        job_id: the job's that is asked for.

    Raises:
        FlareError: as it was raised inside, or with the server's jobs.
    """
    try:
        yield
    except FlareError as error:
        if error.code != "JOB_NOT_FOUND":
            raise
        try:
            jobs = ask("job", "list", "--reverse", "--max", str(_MOST_NAMED + 1))
        except FlareError:
            raise error from None
        raise FlareError(f"the server has no job {job_id}{_listed(jobs)}", error.code) from error


def _listed(jobs: Sequence[dict[str, Any]]) -> str:
    if not jobs:
        return ", and no other that you may see"
    said = []
    for job in jobs[:_MOST_NAMED]:
        about = [plain_text(job[key]) for key in ("job_name", "status") if job.get(key)]
        said.append(plain_text(job.get("job_id")) + (f" ({', '.join(about)})" if about else ""))
    more = ", and more: `nvflare job list` shows all" if len(jobs) > _MOST_NAMED else ""
    return f". Its jobs, the newest first: {', '.join(said)}{more}"
