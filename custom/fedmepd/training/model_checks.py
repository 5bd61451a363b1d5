"""What a model file must look like before memory is taken for its network: anybody may have written it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fedmepd.config import EvaluationSettings, NetworkSettings
from fedmepd.errors import CheckpointError, explain, require_printable
from fedmepd.networks.anchors import fault_of, kind_of
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.task import Task

DAMAGED = "the file is damaged or was changed; take another copy of it"

# They go to terminals, pages and other files.
_Name = Annotated[str, Field(max_length=64), AfterValidator(require_printable)]
_Text = Annotated[str, Field(max_length=1000), AfterValidator(require_printable)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Numbers = Annotated[tuple[float, ...] | list[float], Field(max_length=16)]


class _Calibration(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    residual: bool
    dropout: float = Field(ge=0, le=1)


class _Scores(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    dice: dict[_Name, _Share]
    mdsc: _Share


class _About(BaseModel):
    """What a model says of its training: it is printed, or decides how images are prepared and compared."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    owner: _Text
    method: _Name
    round: int = Field(ge=0, le=2**31)
    scores: _Scores | None = None
    clip_percent: float = Field(0.0, ge=0, lt=10)
    window: int = EvaluationSettings.model_fields["window"]
    overlap: float = EvaluationSettings.model_fields["overlap"]
    voxel_mm: _Numbers = ()
    foreground_ml: float = Field(0.0, ge=0)
    intensities: dict[_Name, _Numbers] = {}
    phantoms: bool | None = None
    version: _Text = ""


class _Header(NetworkSettings):
    """What a model says of its network. Width and shape have the bounds of a job's settings."""

    model_config = ConfigDict(extra="ignore", strict=True, arbitrary_types_allowed=True)

    kind: _Name
    format: int
    task: _Name
    modalities: list[_Name] = Field(min_length=1, max_length=64)
    task_modalities: list[_Name] = []
    classes: list[_Name] = []
    label_maps: dict[_Name, dict[_Name, int]] = {}
    calibration: _Calibration | None
    about: _About
    state: dict[str, Tensor]
    anchors: dict[str, Tensor]


def check_header(path: object, content: dict[str, Any]) -> dict[str, Any]:
    """Looks whether a model's description is one, and its network of a size that a job may have.

    Args:
        path: of the file, for messages.
        content: of the file.

    Returns:
        the keys of it that are known here: what else it holds may be of any kind and, written out, of any size.

    Raises:
        CheckpointError: the message names the key.
    """
    try:
        header = _Header.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"{explain(error, str(path))}: {DAMAGED}") from error
    told = header.model_dump(exclude_unset=True, exclude={"state", "anchors"})
    told |= {"state": content["state"], "anchors": content["anchors"]}
    return {key: told[key] for key in content if key in told}


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
        if (kind := kind_of(state[key])) or not torch.isfinite(state[key]).all():
            found = f"is {kind}, expected floating-point numbers" if kind else "holds NaN or infinity"
            raise CheckpointError(f"{path}: {key} {found}: {DAMAGED}")
    if fault := fault_of(content["anchors"], task, network.width):
        raise CheckpointError(f"{path}: its anchors {fault}: {DAMAGED}")
