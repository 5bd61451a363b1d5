"""The bits of a tiny run of the oldest methods, to see whether a change of the code changes a number.

``python -m tests.federation.bits FILE`` records them. The same command after the change says what differs. Both have to
run on the same machine: on another processor, or with another PyTorch, the same arithmetic gives other bits.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedmepd.federation.exchange import Payload, Update
from fedmepd.federation.in_process import run_in_process
from fedmepd.flare.filters import FromWirePrecision, ToWirePrecision
from fedmepd.storage import load_tensors
from tests.tiny import SITES, Tiny, settings

METHODS = ("fedmepd", "local", "fedavg", "fusion_only")
PRECISIONS = ("float32", "float16")
ROUNDS = 3


def of(method: str, precision: str, **changes: Any):
    return settings(
        method,
        rounds=ROUNDS,
        aggregation={"wire_precision": precision},
        personalization={"patience": 1, "warmup_rounds": 0},
        **changes,
    )


def train(tiny: Tiny, method: str, precision: str, folder: Path, pictures: bool = False, **options: Any) -> dict:
    """Runs a federation in one process, everything on the wire as FLARE's filters leave it; returns its results."""

    def wire(tensors: dict) -> dict:
        dxo = DXO(DataKind.WEIGHTS, tensors, {"wire_precision": precision})
        for part in (ToWirePrecision(), FromWirePrecision()):
            dxo = part.process_dxo(dxo, Shareable(), FLContext())
        return dxo.data

    return run_in_process(
        of(method, precision, evaluation={"pictures": pictures}),
        tiny.machine,
        folder,
        list(SITES),
        on_the_way=lambda site, update: Update(update.round, wire(update.tensors), update.report),
        on_the_way_down=lambda site, payload: Payload(payload.round, wire(payload.tensors)),
        **options,
    )


def run(tiny: Tiny, method: str, precision: str, folder: Path) -> dict[str, str]:
    """Runs a federation; returns its bits."""
    train(tiny, method, precision, folder)
    return bits(folder)


def bits(folder: Path) -> dict[str, str]:
    """Hashes of every tensor that a finished run keeps, whatever the layout of its folder."""
    server = load_tensors(next(Path(folder).rglob("server_state.pt")))["method"]
    fusion = load_tensors(next(Path(folder).rglob(f"fusion/state_{ROUNDS:05d}.pt")))
    found = {f"server/{key}": value for key, value in (fusion["network"] | server["weights"]).items()}
    found |= {f"anchors/{level}": rows for level, rows in fusion["method"].get("rows", {}).items()}
    kept = server.get("filters", {"state": {}})
    found |= {f"{kind}/{layer}": rows for kind, layers in kept["state"].items() for layer, rows in layers.items()}
    for path in sorted(Path(folder).rglob(f"state_{ROUNDS:05d}.pt")):
        site = next((part for part in path.parts if part in SITES), None)
        if site is None:
            continue
        found |= {f"{site}/{key}": value for key, value in load_tensors(path)["network"].items()}
    return {key: _hash(value) for key, value in found.items()}


def _hash(value: torch.Tensor) -> str:
    return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()[:12]


def main() -> None:
    """Records the bits of every method in a file; if the file is there already, says what differs."""
    file = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny(Path(folder) / "tiny")
        found = {
            f"{method} {precision}": run(tiny, method, precision, Path(folder) / method / precision)
            for method in METHODS
            for precision in PRECISIONS
        }
    if not file.exists():
        file.write_text(json.dumps(found, indent=0) + "\n")
        print(f"recorded in {file}")
        return
    recorded = json.loads(file.read_text())
    for name, of_run in found.items():
        before = recorded[name]
        names = sorted(before.keys() | of_run.keys())
        different = [key for key in names if before.get(key) != of_run.get(key)]
        print(f"{name}: {len(different)} of {len(names)} tensors differ", *different[:5])


if __name__ == "__main__":
    main()
