"""The authors' golden numbers, where they lie beside the repository; tests that need them are skipped elsewhere."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden"
AVAILABLE = (FOLDER / "rfnet_w4.npz").is_file()


def checkpoint() -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """Returns a fresh copy of the client checkpoint's state, and its anchors by level as (rows, C_l)."""
    array_types = [
        np._core.multiarray._reconstruct,
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
    ]
    with torch.serialization.safe_globals(array_types):
        content = torch.load(FOLDER / "rfnet_w4_client.pth", weights_only=True)
    anchors = {level: content["proto"][f"x{level}"].flatten(0, 1) for level in (1, 2, 3, 4)}
    return dict(content["state_dict"]), anchors


@functools.cache
def predictions() -> dict[str, Tensor]:
    """Returns the input ``x`` and what the authors' network made of it in evaluation mode."""
    with np.load(FOLDER / "rfnet_w4.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@functools.cache
def training() -> dict:
    """Returns losses and gradient norms in training mode without dropout, by side and mask."""
    return json.loads((FOLDER / "rfnet_w4_train.json").read_text())


def label() -> Tensor:
    """Returns the label of the training numbers, (1, X, Y, Z)."""
    with np.load(FOLDER / "rfnet_w4_train_label.npz") as arrays:
        return torch.from_numpy(arrays["label"].astype(np.int64))[None]


def parse(mask: str) -> list[bool]:
    """Returns which modalities a mask such as ``"0011"`` names."""
    return [digit == "1" for digit in mask]


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Returns every key of a published checkpoint of full width, with its shape."""
    keys = json.loads((FOLDER / "published_checkpoint_keys.json").read_text())
    return {key: tuple(shape) for key, shape in keys.items()}
