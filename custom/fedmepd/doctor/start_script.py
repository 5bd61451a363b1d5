"""Whether a kit's start script starts the Python that these checks run in.

FLARE's script starts the first ``python3`` in ``PATH``, which knows nothing of an environment that is not activated.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.versions import Installed

_VERSIONS = Topic("versions")
# PyTorch's, as the server's, may differ a little, and Python's does not matter.
_THE_SAME = ("fedmepd", "nvflare")
_SECONDS = 120
_BY_HAND = "`fedmepd poc` starts this kit with its own Python; to start it by hand, "

_QUESTION = """
import json
try:
    from fedmepd.doctor.versions import Installed
except ImportError as error:
    print(json.dumps({"missing": error.name}))
else:
    here = Installed.here()
    print(json.dumps({"versions": here.versions, "unmet": here.unmet}))
"""


def check_start_script(kit: Kit, mine: Installed, find: Callable[[str], str | None] = shutil.which) -> Iterator[Check]:
    """Asks the Python that the kit's start script finds what it has; a kit for containers has no such script.

    `fedmepd poc` puts its own Python first in the ``PATH`` of the kits that it starts, so there it is only a note.

    Args:
        kit: the site's or server's.
        mine: what is installed here.
        find: returns the path of a program, or None.
    """
    program = _program(kit)
    if program is None:
        return
    found = find(program)
    if found is None:
        text, advice = f"PATH has no {program}", _activate()
        if kit.of_poc:
            yield _VERSIONS.note("start script without a Python", text, _BY_HAND + advice)
        else:
            yield _VERSIONS.error("start script without a Python", text, advice)
    elif reason := "" if _is_this_one(Path(found)) else _lacks(found, kit, mine):
        text = f"startup/start.sh would start {found}, the first {program} in PATH, and not {sys.executable}: {reason}"
        advice = f"{_activate()}; or install the package there: `{quote(found)} -m pip install -r requirements.txt`"
        if kit.of_poc:
            yield _VERSIONS.note("another Python in the start script", text, _BY_HAND + advice)
        else:
            yield _VERSIONS.error("another Python in the start script", text, advice)
    else:
        yield _VERSIONS.ok("Python of the start script", found)


def _activate() -> str:
    script = Path(sys.prefix) / "bin" / "activate"
    if script.is_file():
        first = f"run `source {quote(str(script))}`"
    else:
        first = f"put {Path(sys.executable).parent} first in PATH"
    return f"{first} before startup/start.sh, also where cron or systemd starts it"


def _program(kit: Kit) -> str | None:
    """The program in which the script starts FLARE."""
    script = kit.folder / "startup" / "sub_start.sh"
    if not script.is_file():
        return None
    found = re.search(r"\bexec (\S+) -u -m nvflare\b", script.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None


def _is_this_one(found: Path) -> bool:
    # An environment's Python is a link to another one's, so the folder counts too.
    here = Path(sys.executable)
    return found.absolute().parent == here.parent and os.path.samefile(found, here)


def _lacks(found: str, kit: Kit, mine: Installed) -> str:
    """What is wrong with another Python; empty: nothing."""
    try:
        # The kit's folder: what lies where this command runs is not what the script will find.
        asked = subprocess.run(
            [found, "-c", _QUESTION], cwd=kit.folder, capture_output=True, text=True, timeout=_SECONDS
        )
        answer = json.loads(asked.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    except ValueError:
        return (asked.stderr.strip().splitlines() or ["it answers nothing"])[-1]
    if "missing" in answer:
        needed = "" if answer["missing"] == "fedmepd" else ", which FedMEPD needs"
        return f"it lacks the package {answer['missing']}{needed}"
    theirs = answer["versions"]
    different = [
        f"{name} {theirs.get(name, 'is missing')}, here {mine.versions[name]}"
        for name in _THE_SAME
        if name in mine.versions and theirs.get(name) != mine.versions[name]
    ]
    return ", ".join([*different, *answer["unmet"]])
