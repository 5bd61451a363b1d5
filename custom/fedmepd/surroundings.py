"""What an environment may lack that libraries take for granted, put right as soon as this package is imported.

Containers run as users without an entry in passwd, and a notebook's processes inherit the name of its plotting backend,
which is installed beside the notebook and not here. MONAI asks for both when it is imported, and so would end every
command and every process of FLARE.
"""

from __future__ import annotations

import getpass
import os
from importlib.util import find_spec

_BACKEND, _MODULE = "MPLBACKEND", "module://"


def settle() -> None:
    """Changes the environment of this process, and of those that it starts, only where it could not work as it is."""
    backend = os.environ.get(_BACKEND, "")
    if backend.startswith(_MODULE) and not _is_installed(backend.removeprefix(_MODULE)):
        # This package writes pictures into files and never shows a window.
        os.environ[_BACKEND] = "agg"
    try:
        getpass.getuser()
    # Which one depends on system and version of Python.
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    # A parent package is missing, or the name is none.
    except (ImportError, ValueError):
        return False
