"""Import of checkpoints in the layout of FedMEPD's authors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from fedmepd.config import NetworkSettings
from fedmepd.errors import CheckpointError, explain, plain_text
from fedmepd.networks.anchors import MOST_PER_CLASS, fault_of, kind_of
from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task

# The task of the published models, and the order in which they number its modalities.
_TASK = "brats"
_MODALITIES = ("FLAIR", "T1ce", "T1", "T2")

_EXPECTED = "expected FedMEPD's published layout"
_MOST_ROUNDS = 2**31
_HEAD = "decoder_fuse.x4_attn.fc_q.weight"
_LEVEL = {"c1": "up", "c2": "merge", "out": "out"}
_ATTENTION = {"fc_q": "query", "fc_k": "key", "fc_v": "value", "fc_o": "out"}
_REGIONS = {
    "embedding_layer.0": "reduce",
    "embedding_layer.1": "mix",
    "embedding_layer.2": "expand",
    "prm_layer.0": "gather",
    "prm_layer.1": "classify",
}


@dataclass
class Published:
    """An imported checkpoint: the network with its weights and anchors, and the round it was written after."""

    network: FedMEPDNet
    round: int
    calibrated: bool


def import_published(path: Path) -> Published:
    """Reads a published checkpoint of the server or of a client.

    Args:
        path: file with ``state_dict``, and with ``proto`` if it has anchors.

    Raises:
        CheckpointError: the file is not such a checkpoint, or a key or shape is not as expected; the message names it.
    """
    content = _read(Path(path))
    state = _weights(path, content["state_dict"])
    first = state.get("c1_encoder.e1_c1.conv.weight")
    if first is None:
        raise CheckpointError(f"{path}: key c1_encoder.e1_c1.conv.weight is missing: {_EXPECTED}")
    task, width = find_task(_TASK), first.shape[0] if first.ndim else 0
    try:
        NetworkSettings(width=width)
    except ValidationError as error:
        raise CheckpointError(f"{path}: c1_encoder.e1_c1.conv.weight: {explain(error, 'network')}") from error
    anchors = _anchors(path, content.get("proto"), task, width)
    calibrated = bool(anchors) and _HEAD in state
    # Of shapes alone: whatever is not as expected must not be copied.
    with torch.device("meta"):
        shapes = _translate(path, {key: value.to("meta") for key, value in state.items()}, calibrated)
        _compare(FedMEPDNet(task, width=width, calibration={} if calibrated else None), shapes, path)
    if fault := fault_of(anchors, task, width):
        raise CheckpointError(f"{path}: the anchors in proto {fault}")
    network = FedMEPDNet(task, width=width, calibration={} if calibrated else None)
    network.load_state_dict(_translate(path, state, calibrated))
    network.anchors = anchors if calibrated else {}
    return Published(network.eval(), _round(path, content), calibrated)


def _read(path: Path) -> dict:
    import numpy as np

    # The types needed to rebuild numpy arrays (the authors store their Dice as one). No others are allowed.
    allowed = [np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar]
    allowed += [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    hint = f"; {_EXPECTED}, with nothing but tensors, numpy arrays and plain values in it"
    content = load_tensors(path, "published checkpoint", hint, allowed, from_outside=True)
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: key state_dict is missing: {_EXPECTED}")
    return content


def _weights(path: Path, state: dict[object, object]) -> dict[str, Tensor]:
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: {plain_text(key)} is no name of a weight: {_EXPECTED}")
        if kind := kind_of(value):
            raise CheckpointError(f"{path}: {key} is {kind}, expected floating-point numbers: {_EXPECTED}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _round(path: Path, content: dict) -> int:
    import numpy as np

    number = content.get("round", content.get("epoch"))
    number = 0 if number is None else number.item() if isinstance(number, np.number) else number
    if not isinstance(number, int | float) or not 0 <= number <= _MOST_ROUNDS:
        raise CheckpointError(f"{path}: its round is {plain_text(number)}: expected a number of rounds")
    return int(number)


def _anchors(path: Path, prototypes: object, task: Task, width: int) -> dict[int, Tensor]:
    if prototypes is None or prototypes == {}:
        return {}
    if not isinstance(prototypes, dict):
        raise CheckpointError(f"{path}: proto is a {type(prototypes).__name__}: expected anchors by level")
    anchors = {}
    for level in LEVELS:
        name = f"proto.x{level}"
        if (found := prototypes.get(f"x{level}")) is None:
            raise CheckpointError(f"{path}: key {name} is missing")
        value = _tensor_of(found)
        if kind := kind_of(value):
            raise CheckpointError(f"{path}: {name} is {kind}: expected a tensor of floating-point numbers")
        each = (len(task.classes), channels(width, level))
        if value.ndim != 3 or tuple(value.shape[1:]) != each or not 1 <= value.shape[0] <= MOST_PER_CLASS:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}: expected 1 to {MOST_PER_CLASS} clusters of {each}"
            )
        # (N_k, classes, C) -> one row for each class and cluster
        anchors[level] = value.float().transpose(0, 1).flatten(0, 1).contiguous()
    return anchors


def _tensor_of(value: object) -> object:
    """An array of numpy's as a tensor, where there are tensors of its kind."""
    import numpy as np

    if isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32, np.float64):
        return torch.as_tensor(value)
    return value


def _translate(path: Path, state: dict[str, Tensor], calibrated: bool) -> dict[str, Tensor]:
    """Renames the published keys to ours. Biases before a normalisation have no counterpart and are left out."""
    translated: dict[str, Tensor] = {}
    groups: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if key.endswith(".conv.bias") or ".conv1X1." in key or ("_attn." in key and not calibrated):
            continue
        grouped = re.fullmatch(r"decoder_fuse\.RFM(\d)\.modal_fusion\.(\d)\.weight_layer\.([02])\.(weight|bias)", key)
        if grouped:
            level, region, layer, kind = grouped.groups()
            name = f"decoder.levels.{level}.fusion.{'hidden' if layer == '0' else 'weigh'}.{kind}"
            if value.ndim < (3 if kind == "weight" else 1):
                raise CheckpointError(f"{path}: {key} has shape {tuple(value.shape)}: {_EXPECTED}")
            groups.setdefault(name, {})[int(region)] = value.flatten(2) if kind == "weight" else value
            continue
        translated[_rename(key)] = value
    for name, by_region in groups.items():
        rows = [by_region[region] for region in sorted(by_region)]
        if len({one.shape[1:] for one in rows}) > 1:
            raise CheckpointError(f"{path}: what becomes {name} differs in shape from region to region: {_EXPECTED}")
        translated[name] = torch.cat(rows)
    return translated


def _rename(key: str) -> str:
    if match := re.fullmatch(r"c(\d)_encoder\.e(\d)_c(\d)\.(.+)", key):
        modality, level, block, rest = match.groups()
        return f"encoders.{_MODALITIES[int(modality) - 1]}.levels.{level}.{int(block) - 1}.{rest}"
    if match := re.fullmatch(r"decoder_(fuse|sep)\.d(\d)_(c1|c2|out)\.(.+)", key):
        decoder, level, block, rest = match.groups()
        if decoder == "sep":
            return f"auxiliary.levels.{level}.{_LEVEL[block]}.{rest}"
        block = {"c1": "up", "c2": "merge.0", "out": "merge.1"}[block]
        return f"decoder.levels.{level}.{block}.{rest}"
    if match := re.fullmatch(r"decoder_(fuse|sep)\.seg_layer\.(.+)", key):
        return f"{'decoder' if match[1] == 'fuse' else 'auxiliary'}.classify.{match[2]}"
    if match := re.fullmatch(r"decoder_fuse\.RFM(\d)\.(region_fusion\.fusion_layer|short_cut)\.(\d)\.(.+)", key):
        level, part, block, rest = match.groups()
        return f"decoder.levels.{level}.fusion.{'short_cut' if part == 'short_cut' else 'fuse'}.{block}.{rest}"
    if match := re.fullmatch(r"decoder_fuse\.prm_generator(\d)\.((?:embedding|prm)_layer\.\d)\.(.+)", key):
        level, part, rest = match.groups()
        return f"decoder.levels.{level}.regions.{_REGIONS.get(part, part)}.{rest}"
    if match := re.fullmatch(r"decoder_fuse\.x(\d)_attn\.(fc_[qkvo])\.(.+)", key):
        level, part, rest = match.groups()
        return f"calibration.{level}.{_ATTENTION[part]}.{rest}"
    return key


def _compare(network: FedMEPDNet, state: dict[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    for key in expected:
        if key not in state:
            raise CheckpointError(f"{path}: nothing in it becomes {key}: {_EXPECTED}")
        if state[key].shape != expected[key].shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, expected {tuple(expected[key].shape)} at width "
                f"{network.width}"
            )
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise CheckpointError(f"{path}: unknown key {unknown[0]}: {_EXPECTED}")
