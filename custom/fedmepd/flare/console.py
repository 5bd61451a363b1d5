"""Fewer lines on the simulator's console, where the server and all sites write to one terminal."""

from __future__ import annotations

import copy
import logging
from typing import Any

from nvflare.fuel.utils.log_utils import concise_log_dict

# Lines that tell a reader nothing: one or more for every message between processes, for every start of a process, and
# about where FLARE's own files are. The simulator's concise mode does not leave them out.
_CHATTY = (
    "__main__.ClientTaskWorker",
    "matplotlib.font_manager",
    "nvflare.app_opt.pt.tensor_downloader",
    "nvflare.app_opt.tracking.tb.tb_receiver.TBAnalyticsReceiver",
)


def quieten() -> None:
    """Leaves warnings and errors of these loggers, in the process that calls it."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def quiet_log_config() -> dict[str, Any]:
    """Returns FLARE's concise log configuration without these loggers' lines, from a process's first line on."""
    config = copy.deepcopy(concise_log_dict)
    config["loggers"] |= {name: {"level": "WARNING"} for name in _CHATTY}
    return config
