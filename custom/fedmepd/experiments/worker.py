"""The process of one run: ``python -m fedmepd.experiments.worker FOLDER``.

With ``--prepare`` it prepares the run's cases only. With ``--beside PROCESS`` it ends, with the processes that it has
started, when that process is gone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from fedmepd.errors import FedMEPDError
from fedmepd.experiments.run_folder import RunFolder

DONE, FAILED = 0, 1
_LOOK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Does the run, or prepares its cases; returns the exit status and keeps the reason of a failure."""
    parser = argparse.ArgumentParser(prog="fedmepd.experiments.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--beside", type=int, metavar="PROCESS")
    options = parser.parse_args(arguments)
    if options.beside is not None:
        threading.Thread(target=_end_with, args=(options.beside,), daemon=True).start()
    folder = RunFolder(options.folder)
    try:
        from fedmepd.experiments.engines import carry_out, prepare
        from fedmepd.site_settings import SiteSettings
        from fedmepd.storage import locked

        with locked(folder.path / ".lock", f"{folder.path} is worked on by another process"):
            folder.forget_failure()
            run, machine = folder.planned(), SiteSettings.load()
            if options.prepare:
                prepare(run, machine)
            else:
                carry_out(run, folder.path, machine)
        return DONE
    except FedMEPDError as error:
        return _fail(folder, str(error))
    # Whatever it is, the other runs go on, and the user reads why this one did not.
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines()
        return _fail(folder, f"{type(error).__name__}: {lines[0] if lines else 'without a reason'}")


def _fail(folder: RunFolder, reason: str) -> int:
    print(reason, file=sys.stderr, flush=True)
    try:
        folder.fail(reason)
    except FedMEPDError as error:
        print(error, file=sys.stderr, flush=True)
    return FAILED


def _end_with(process: int) -> None:
    """Waits for the end of the process that has started this one, then ends this one's whole group."""
    while os.getppid() == process:
        time.sleep(_LOOK_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
