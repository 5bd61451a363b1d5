"""FLARE's own command line as a function: its JSON answers as values, its failures as errors."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmepd.errors import FedMEPDError

_COMMAND_SECONDS = 300
# FLARE gives up after five, which a busy machine needs to start an administrator's process and greet the server.
CONNECT_SECONDS = 30


class FlareError(FedMEPDError):
    """A FLARE command failed; the message says which, and what it answered.

    Args:
        message: for the user.
        code: FLARE's word for it, such as ``JOB_NOT_RUNNING``.
    """

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


def run_flare(arguments: Sequence[str], *, poc: Path | None = None, kit: Path | None = None) -> dict[str, Any]:
    """Runs a FLARE command; returns its data.

    Args:
        arguments: of the command ``nvflare``.
        poc: FLARE's own POC workspace, if the command is about that.
        kit: of the admin in whose name it runs; None: the one that FLARE has noted as active.

    Raises:
        FlareError: it failed.
    """
    command = [sys.executable, "-m", "nvflare.cli", *arguments, "--format", "json"]
    command += ["--connect-timeout", str(CONNECT_SECONDS), *(["--startup-kit", str(kit)] if kit else [])]
    try:
        # In a session of its own: whoever interrupts us does not break off a command that is about to stop things.
        run = subprocess.run(
            command,
            env=os.environ | ({"NVFLARE_POC_WORKSPACE": str(poc)} if poc else {}),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise FlareError(f"nvflare {' '.join(arguments[:2])} did not end within {_COMMAND_SECONDS} s") from error
    return answer_of(arguments, run.stdout, run.stderr)


def answer_of(arguments: Sequence[str], output: str, errors: str) -> dict[str, Any]:
    """Returns the data that a FLARE command printed as JSON.

    Raises:
        FlareError: it reports an error, or printed something else.
    """
    name = f"nvflare {' '.join(arguments[:2])}"
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict) and "status" in answer:
                if answer["status"] == "ok":
                    return answer["data"]
                hint = f" {answer['hint']}" if answer.get("hint") else ""
                raise FlareError(f"{name}: {answer.get('message')}.{hint}", answer.get("error_code", ""))
    last = (errors or output).strip().splitlines()[-1:] or ["it printed nothing"]
    raise FlareError(f"{name} failed: {last[0]}")
