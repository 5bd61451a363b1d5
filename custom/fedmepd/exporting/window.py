"""The network for one inference window as a TorchScript or ONNX file, for runtimes without this package.

The file contains the computation for one window (1, M, W, W, W) of prepared images. The caller prepares the case and
slides the window. Side and modalities are fixed and recorded in the file.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fedmepd.errors import FedMEPDError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.segmentation.limits import intended_use
from fedmepd.storage import write_atomically
from fedmepd.training.checkpoints import About, describe, load_model, model_task, trained_with

ABOUT = "fedmepd.json"

# Largest difference of a probability between the file and the model.
TOLERANCE = 1e-4


class _Window(nn.Module):
    def __init__(self, network: FedMEPDNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image, self.network.modalities)


def export_torchscript(model: Path, out: Path, window: int | None = None) -> float:
    """Writes TorchScript: ``torch.jit.load(out)`` maps a window to class probabilities.

    Args:
        model: a checkpoint of this package.
        out: the file to write; its extra file ``fedmepd.json`` describes the input.
        window: side in voxels; None: that of the model's job.

    Returns:
        the largest difference of a probability from the model's, over random windows.

    Raises:
        CheckpointError: the file is not a model.
        FedMEPDError: the written network differs from the model, or the file exists or cannot be written.
    """
    network, about, inputs = _open(model, out, window)
    with torch.no_grad(), _silence():
        traced = torch.jit.trace(network, inputs[0], check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={ABOUT: json.dumps(about)})
    read = torch.jit.load(io.BytesIO(buffer.getvalue()))
    difference = _compare(network, inputs, read)
    write_atomically(out, lambda file: file.write(buffer.getvalue()))
    return difference


def export_onnx(model: Path, out: Path, window: int | None = None) -> float:
    """Writes ONNX, with input ``image`` and output ``probabilities``; arguments as for :func:`export_torchscript`.

    The metadata of the file describe the input.

    Raises:
        FedMEPDError: also if the packages for ONNX are not installed.
    """
    onnx, runtime, _ = (_need(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    network, about, inputs = _open(model, out, window)
    with torch.no_grad(), _silence():
        program = torch.onnx.export(
            network, (inputs[0],), dynamo=True, input_names=["image"], output_names=["probabilities"], verbose=False
        )
    written = program.model_proto
    onnx.helper.set_model_props(written, {key: json.dumps(value) for key, value in about.items()})
    content = written.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = _compare(
        network, inputs, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    )
    write_atomically(out, lambda file: file.write(content))
    return difference


def _open(model: Path, out: Path, window: int | None) -> tuple[_Window, dict[str, Any], list[Tensor]]:
    described = describe(model)
    if out.exists():
        raise FedMEPDError(f"{out} exists already: choose another name")
    side = described["about"].get("window", About.window) if window is None else window
    if side < 16 or side % 8:
        raise FedMEPDError(f"--window {side}: expected a multiple of 8, at least 16 voxels")
    task = model_task(model, described)
    # What an image of the task should be like, without what is not known.
    measures = trained_with(described["about"]).that_matter(task)
    about = {
        "task": task.name,
        "channels": described["modalities"],
        "classes": list(task.classes),
        "labels": list(task.label_of_class(task.default_convention)),
        "window": side,
        "intensities": f"{task.describe_intensities()}, 0 outside",
        "voxel_mm": list(task.voxel_mm),
        "clip_percent": described["about"].get("clip_percent", About.clip_percent),
        "owner": described["about"]["owner"],
        "round": described["about"]["round"],
        "use": intended_use(described["about"]),
        "trained_with": {key: value for key, value in asdict(measures).items() if value},
    }
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(described["modalities"]), side, side, side)
    return _Window(load_model(model)).eval(), about, [torch.randn(shape, generator=generator) for _ in range(2)]


def _compare(network: _Window, inputs: list[Tensor], written: Callable[[Tensor], Tensor]) -> float:
    with torch.no_grad():
        difference = max(float((written(image) - network(image)).abs().max()) for image in inputs)
    if not difference <= TOLERANCE:
        raise FedMEPDError(
            f"the exported network differs from the model by {difference:.2g} in a probability, at most {TOLERANCE:g} "
            "is allowed: nothing is written. Use `fedmepd predict`, or `fedmepd export bundle`"
        )
    return difference


def _need(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FedMEPDError(
            f"the package {name} is not installed: `pip install onnx onnxruntime onnxscript`, then try again"
        ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Both exporters warn that shapes are fixed, which is intended here."""
    import logging
    import warnings

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
