"""Which of several runs below a folder a command shows, and which others are there."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fedmepd.text_table import counted

_MOST_SHOWN = 10


def chosen_run(workspace: Path, *, also: Sequence[str] = ()) -> Path:
    """Returns the results.json of the newest run below a folder; tells of the others, if there are any.

    Args:
        workspace: the folder.
        also: names of other files that the command shows, of which the message tells if there is no run.

    Raises:
        FedMEPDError: there is none.
    """
    from fedmepd.evaluation.results import find_all, read, run_folder

    newest, *others = find_all(workspace, also=also)
    if others:
        _tell(newest, read(newest), run_folder(newest), [run_folder(path) for path in others])
    return newest


def chosen_site(folder: Path) -> Path | None:
    """Returns the site.json of a site's newest run below a folder, or None; tells of the others, if there are any."""
    from fedmepd.evaluation.site_results import find_all, read

    newest, *others = find_all(folder) or [None]
    if newest and others:
        _tell(newest, read(newest), newest.parent, [path.parent for path in others])
    return newest


def _tell(path: Path, run: dict, folder: Path, others: Sequence[Path]) -> None:
    # On the error stream, so that the output is the run's alone.
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    more = f" and {len(others) - _MOST_SHOWN} more" if len(others) > _MOST_SHOWN else ""
    print(
        f"the newest of {counted(len(others) + 1, 'run')}: {folder} ({run['method']}, seed {run['seed']}, round "
        f"{run['round']} of {run['rounds']}, {written})\n"
        f"name another one to see it: {', '.join(map(str, others[:_MOST_SHOWN]))}{more}",
        file=sys.stderr,
        flush=True,
    )
