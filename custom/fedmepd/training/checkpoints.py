"""Checkpoints that describe themselves: what a site keeps and what a user loads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from fedmepd import __version__
from fedmepd.errors import CheckpointError
from fedmepd.modalities import BRATS
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors, save_tensors

FORMAT = 1
_KIND = "fedmepd model"


@dataclass
class About:
    """What a checkpoint says of the model in it.

    Attributes:
        owner: the site's name, ``fusion``, or where it was imported from.
        method, round: how and when it was trained.
        scores: validation scores, ``mdsc`` and ``dice`` by region, or None.
    """

    owner: str
    method: str
    round: int
    scores: dict | None = None
    version: str = field(default=__version__)


def save_model(path: Path, network: FedMEPDNet, about: About) -> None:
    """Writes a network with its anchors, and what is needed to build it again."""
    calibration = None
    if network.calibration is not None:
        first = next(iter(network.calibration.values()))
        calibration = {"residual": first.residual, "dropout": first.dropout}
    content = {
        "kind": _KIND,
        "format": FORMAT,
        "task": network.description.name,
        "label_map": {str(label): number for label, number in network.description.class_of_label.items()},
        "modalities": list(network.modalities),
        "width": network.width,
        "shared_encoder": network.shared_encoder,
        "calibration": calibration,
        "about": asdict(about),
        "state": {key: value.contiguous() for key, value in network.state_dict().items()},
        "anchors": {str(level): rows.contiguous() for level, rows in network.anchors.items()},
    }
    save_tensors(path, content)


def describe(path: Path) -> dict:
    """What a checkpoint says of itself: everything but its weights.

    Raises:
        CheckpointError: the file is no fedmepd model.
    """
    content = _read(path)
    return {key: value for key, value in content.items() if key not in ("state", "anchors")}


def load_model(path: str | Path) -> FedMEPDNet:
    """Loads a model for inference: evaluation mode, on the CPU.

    Args:
        path: a checkpoint of :func:`save_model`.

    Returns:
        the network; ``network(images, ("FLAIR", "T2"))`` maps (B, 2, X, Y, Z) to class probabilities (B, 4, X, Y, Z).

    Raises:
        CheckpointError: the file is missing, damaged, of another kind or version, or its weights do not fit.
    """
    content = _read(path)
    network = FedMEPDNet(
        content["modalities"],
        content["width"],
        calibration=content["calibration"],
        shared_encoder=content["shared_encoder"],
    )
    expected = network.state_dict()
    for key, value in expected.items():
        found = content["state"].get(key)
        if found is None or found.shape != value.shape:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise CheckpointError(
                f"{path}: {key} is {shape}, expected {tuple(value.shape)} at width {network.width}: the file is damaged"
            )
    network.load_state_dict(content["state"])
    network.anchors = {int(level): rows for level, rows in content["anchors"].items()}
    return network.eval()


def _read(path: str | Path) -> dict:
    content = load_tensors(Path(path))
    if content.get("kind") != _KIND:
        hint = "; import it with `fedmepd checkpoint import`" if "state_dict" in content else ""
        raise CheckpointError(f"{path} is no fedmepd model{hint}")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, this version of fedmepd reads format {FORMAT}: install the version "
            f"that wrote it ({content['about']['version']})"
        )
    if content["task"] != BRATS.name:
        raise CheckpointError(f"{path} is a model for {content['task']!r}, expected {BRATS.name!r}")
    return content
