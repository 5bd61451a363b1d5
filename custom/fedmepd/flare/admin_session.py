"""An administrator's session with a server, kept open: a question takes milliseconds, not a process of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    JobNotFound,
    JobNotRunning,
    NoConnection,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session
from nvflare.tool.kit.kit_config import (
    StartupKitConfigError,
    resolve_admin_user_and_dir_from_startup_kit,
    resolve_startup_kit_dir,
)

from fedmepd.flare.poc.commands import CONNECT_SECONDS, FlareError

# The code of an error that says that the administrator's kit is none: no waiting mends it.
BAD_KIT = "BAD_KIT"


class AdminSession:
    """Asks a server about its jobs, in an administrator's name.

    The session opens with the first question. Where the server has ended it, or is away for less than
    ``CONNECT_SECONDS``, as when it is started again, another one opens.

    Args:
        kit: the administrator's, its folder; None: the one that FLARE has noted as active.
        open_session: opens FLARE's own session for a kit.
        wait: waits so many seconds.
        clock: tells the seconds.

    Example::

        with AdminSession(Path("kits/lead@hospital.org")) as session:
            print(session.status("8c1f3a52-..."))
    """

    def __init__(
        self,
        kit: Path | None = None,
        open_session: Callable[[Path | None], Session] | None = None,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._kit, self._open, self._wait, self._clock = kit, open_session or _open, wait, clock
        self._session: Session | None = None
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> AdminSession:
        self._quiet.enter_context(_without_warnings())
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._quiet.close()

    def live(self, job_id: str) -> dict[str, Any] | None:
        """Returns what the server's part of a job reports about itself; None while the job does not run.

        Raises:
            FlareError: the server does not answer, or refuses to.
        """
        try:
            # Sites would answer too, and need not be asked.
            stats = self._ask(lambda session: session.show_stats(job_id, "server"))
        except (JobNotFound, JobNotRunning):
            # Not yet, not any more, or just being put away.
            return None
        components = stats.get("server", {})
        return components if isinstance(components, dict) else {}

    def sites(self) -> list[str]:
        """Returns the names of the sites that are connected.

        Raises:
            FlareError: the server does not answer, or refuses to.
        """
        return [client.name for client in self._ask(lambda session: session.get_system_info()).client_info]

    def status(self, job_id: str) -> str:
        """Returns FLARE's word for how far a job is.

        Raises:
            FlareError: there is no such job, or the server does not answer, or refuses to.
        """
        try:
            status = self._ask(lambda session: session.get_job_meta(job_id)).get("status")
        except JobNotFound as error:
            raise FlareError(f"the server has no job {job_id}", "JOB_NOT_FOUND") from error
        if not isinstance(status, str):
            raise FlareError(f"FLARE cannot answer: it gives job {job_id} no status")
        return status

    def _ask(self, question: Callable[[Session], Any]) -> Any:
        # To open a session takes as long as this by itself if nobody answers.
        end = self._clock() + CONNECT_SECONDS
        while True:
            try:
                self._session = self._session or self._open(self._kit)
                return question(self._session)
            except (JobNotFound, JobNotRunning, FlareError):
                raise
            except StartupKitConfigError as error:
                hint = f" {error.hint}" if error.hint else ""
                raise FlareError(f"{error}.{hint}", BAD_KIT) from error
            except (AuthenticationError, AuthorizationError) as error:
                raise FlareError(f"the server refuses: {error}", "AUTH_FAILED") from error
            except (NoConnection, SessionClosed, InternalError) as error:
                # A server that is starting may answer a login with an error of its own.
                if isinstance(error, InternalError) and self._session is not None:
                    raise FlareError(f"FLARE cannot answer: {error}") from error
                self._close()
                if self._clock() >= end:
                    advice = "look whether it runs, and whether this machine can reach it"
                    raise FlareError(f"the server does not answer ({error}): {advice}", "CONNECTION_FAILED") from error
                self._wait(1.0)
            except Exception as error:
                raise FlareError(f"FLARE cannot answer: {error}") from error

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            # It is of no use any more, whatever the server says to that.
            with contextlib.suppress(Exception):
                session.close()


def _open(kit: Path | None) -> Session:
    user, folder = resolve_admin_user_and_dir_from_startup_kit(str(kit) if kit else _noted())
    # It prints that it connects.
    with contextlib.redirect_stdout(io.StringIO()):
        session = Session(user, folder)
        session.api.auto_login_max_tries = 1
        try:
            session.try_connect(CONNECT_SECONDS)
        except BaseException:
            # Also of whoever interrupts: else threads of FLARE's keep the process from ending.
            session.api.close()
            raise
    return session


def _noted() -> str:
    try:
        return resolve_startup_kit_dir()
    except StartupKitConfigError as error:
        # FLARE's own hint names options that its commands have.
        advice = "name an administrator's kit with --kit FOLDER, or note it with `fedmepd join FOLDER`"
        # It may be of several lines.
        raise FlareError(f"{' '.join(str(error).split())}: {advice}", BAD_KIT) from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps FLARE's warnings of lost connections from the terminal; what counts is raised as an error."""
    logger = logging.getLogger("nvflare")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
