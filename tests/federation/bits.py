"""The bits of a tiny run of every method: what a rebuilt house must not change.

``python -m tests.federation.bits`` records them anew; do that only where arithmetic is meant to change.
"""

from __future__ import annotations

import hashlib
import json
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

RECORDED = Path(__file__).with_name("bits.json")
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


def train(tiny: Tiny, method: str, precision: str, folder: Path, **options: Any) -> dict:
    """Runs a federation in one process, everything on the wire as FLARE's filters leave it; returns its results."""

    def wire(tensors: dict) -> dict:
        dxo = DXO(DataKind.WEIGHTS, tensors, {"wire_precision": precision})
        for part in (ToWirePrecision(), FromWirePrecision()):
            dxo = part.process_dxo(dxo, Shareable(), FLContext())
        return dxo.data

    return run_in_process(
        of(method, precision),
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


def machine() -> str:
    """Differs where the same arithmetic gives other bits: another processor, another PyTorch."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 8, 16, 16, 16, generator=generator).to(memory_format=torch.channels_last_3d)
    weight = torch.randn(8, 8, 3, 3, 3, generator=generator, requires_grad=True)
    out = torch.nn.functional.conv3d(image, weight, padding=1)
    (torch.nn.functional.instance_norm(out).sigmoid().softmax(dim=1) ** 2).sum().backward()
    product = torch.randn(64, 65, generator=generator) @ torch.randn(65, 31, generator=generator)
    return _hash(torch.cat([weight.grad.flatten(), out.detach().flatten(), product.flatten()]))


def _hash(value: torch.Tensor) -> str:
    return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()[:12]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny(Path(folder) / "tiny")
        found = {
            f"{method} {precision}": run(tiny, method, precision, Path(folder) / method / precision)
            for method in METHODS
            for precision in PRECISIONS
        }
    RECORDED.write_text(json.dumps({"machine": machine(), "runs": found}, indent=0) + "\n")


if __name__ == "__main__":
    main()
