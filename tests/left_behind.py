"""What of a process tests share, and none may leave changed: the tests after it would depend on their order."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_VARIABLES = ("HOME", "LOGNAME", "MPLBACKEND", "PATH", "PYTHONPATH", "TMPDIR", "USER")
# Libraries set variables of their own when they are imported, these do not.
_PREFIXES = ("FEDMEPD_", "NVFLARE_", "OMP_")


def shared() -> dict[str, Any]:
    """The state of this process, by name."""
    found: dict[str, Any] = {"the current folder": os.getcwd(), "sys.argv": tuple(sys.argv)}
    found |= {
        f"environment variable {name}": value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    found |= {number.name: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    # Who imports PyTorch changes nothing: these are its defaults.
    torch = sys.modules.get("torch")
    found["PyTorch's default type"] = str(torch.get_default_dtype()) if torch else "torch.float32"
    found["deterministic algorithms"] = bool(torch) and torch.are_deterministic_algorithms_enabled()
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs, as lines."""
    return [
        f"{name} was {before.get(name)}, is {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
