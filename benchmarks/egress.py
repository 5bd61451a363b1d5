"""What the list of all that has left costs a site in a round: ``python -m benchmarks.egress``.

The update of a site with all modalities, as it is after the job's filter: the time to describe it, to add its line, and
to read the line again; processor time of one thread, the median of ten.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nvflare.apis.fl_context import FLContext

from benchmarks.measure import command
from fedmepd.federation.egress import EgressList, read
from fedmepd.federation.exchange import Payload, Update
from fedmepd.flare import translation
from fedmepd.flare.egress import items_of
from fedmepd.flare.filters import ToWirePrecision
from fedmepd.job_settings import make_settings
from fedmepd.methods.parts.selection import AUXILIARY
from fedmepd.networks.build import build_network
from fedmepd.text_table import table

_TIMES = 10
_HEADS = ("width", "tensors", "numbers", "describe, ms", "add, ms", "read, ms", "bytes of the line")


def _milliseconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(_TIMES):
        started = time.process_time()
        work()
        times.append(1000 * (time.process_time() - started))
    return median(times)


def measure(width: int) -> tuple[str, ...]:
    """Returns a row of the table for a network of a width."""
    run = translation.Run(32 * "0", make_settings("paper", {"network": {"width": width}}))
    weights = build_network(run.settings).start(0).state_dict()
    weights = {key: value for key, value in weights.items() if not key.startswith(AUXILIARY)}
    answer = translation.update_reply(Update(1, weights), run, translation.task(run, Payload(1)))
    answer = ToWirePrecision().process(answer, FLContext())
    items = items_of(translation.TRAIN, answer, {"updates": 3})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "egress.jsonl"
        adds = EgressList(path)

        def add() -> None:
            adds.add(to="hub", job="job", run="run", task="train", round_number=1, code="OK", items=items)

        describing = _milliseconds(lambda: items_of(translation.TRAIN, answer, {"updates": 3}))
        adding, reading = _milliseconds(add), _milliseconds(lambda: read(path)) / _TIMES
        size = path.stat().st_size // _TIMES
    numbers = sum(value.numel() for value in weights.values())
    figures = (f"{describing:.1f}", f"{adding:.1f}", f"{reading:.1f}")
    return str(width), str(len(weights)), str(numbers), *figures, str(size)


@command
def main(widths: Sequence[int] = (4, 8, 16)) -> int:
    """Prints the table."""
    torch.set_num_threads(1)
    print("\n".join(table(_HEADS, [measure(width) for width in widths])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
