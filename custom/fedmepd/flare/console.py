"""Fewer lines on the simulator's console, where the server and all sites write to one terminal."""

from __future__ import annotations

import logging

# One or more lines for every message between processes, which the simulator's concise mode does not leave out.
_CHATTY = ("__main__.ClientTaskWorker", "nvflare.app_opt.pt.tensor_downloader")


def quieten() -> None:
    """Leaves warnings and errors of FLARE's chatty loggers."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
