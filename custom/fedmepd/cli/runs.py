"""Which of several runs below a folder a command shows, and which others are there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

_MOST_SHOWN = 10


def chosen_run(workspace: Path) -> Path:
    """Returns the results.json of the newest run below a folder; tells of the others, if there are any.

    It tells on the error stream, so that the output is the run's alone.

    Raises:
        FedMEPDError: there is none.
    """
    from fedmepd.evaluation.results import find_all, read, run_folder

    newest, *others = find_all(workspace)
    if others:
        results = read(newest)
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest.stat().st_mtime))
        more = f" and {len(others) - _MOST_SHOWN} more" if len(others) > _MOST_SHOWN else ""
        names = ", ".join(str(run_folder(path)) for path in others[:_MOST_SHOWN])
        print(
            f"the newest of {len(others) + 1} runs: {run_folder(newest)} ({results['method']}, seed {results['seed']}, "
            f"round {results['round']} of {results['rounds']}, {written})\nname another one to see it: {names}{more}",
            file=sys.stderr,
            flush=True,
        )
    return newest
