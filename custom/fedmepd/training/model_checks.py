"""What a model file must look like before memory is taken for its network: anybody may have written it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fedmepd.config import NetworkSettings
from fedmepd.errors import CheckpointError, explain
from fedmepd.networks.anchors import fault_of
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.task import Task

DAMAGED = "the file is damaged or was changed; take another copy of it"
_Name = Annotated[str, Field(max_length=64)]


class _Calibration(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    residual: bool
    dropout: float = Field(ge=0, le=1)


class _Header(NetworkSettings):
    """What a model says of its network. Width and shape have the bounds of a job's settings."""

    model_config = ConfigDict(extra="ignore", strict=True, arbitrary_types_allowed=True)

    task: _Name
    modalities: list[_Name] = Field(min_length=1, max_length=64)
    calibration: _Calibration | None
    about: dict[str, Any]
    state: dict[str, Tensor]
    anchors: dict[str, Tensor]


def check_header(path: object, content: dict[str, Any]) -> None:
    """Looks whether a model's description is one, and its network of a size that a job may have.

    Args:
        path: of the file, for messages.
        content: of the file.

    Raises:
        CheckpointError: the message names the key.
    """
    try:
        _Header.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"{explain(error, str(path))}: {DAMAGED}") from error


def check_tensors(path: object, content: dict[str, Any], task: Task, build: Callable[[], FedMEPDNet]) -> None:
    """Compares a model's tensors with those of the network that it describes, for which no memory is taken.

    Args:
        path: of the file, for messages.
        content: of the file, with a header that :func:`check_header` has passed.
        task: of the model.
        build: makes the network.

    Raises:
        CheckpointError: the message names the tensor.
    """
    with torch.device("meta"):
        network = build()
    state, expected = content["state"], network.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        if key not in expected:
            raise CheckpointError(f"{path}: {key} is no weight of a model of width {network.width}: {DAMAGED}")
        shape = tuple(expected[key].shape)
        if key not in state or tuple(state[key].shape) != shape:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise CheckpointError(f"{path}: {key} {found}, expected {shape} at width {network.width}: {DAMAGED}")
    if fault := fault_of(content["anchors"], task, network.width):
        raise CheckpointError(f"{path}: its anchors {fault}: {DAMAGED}")
