"""Checkpoints with a description of their model: sites save them, users load them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmepd import __version__
from fedmepd.config import Settings
from fedmepd.data.training_images import ImageMeasures
from fedmepd.errors import CheckpointError, SettingsError, plain_text
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors, save_tensors
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.training.model_checks import DAMAGED, check_header, check_tensors

FORMAT = 1
_KIND = "fedmepd model"
# What models called their task when there was one alone.
_EARLIER_TASKS = {"BraTS": "brats"}
_KEYS = ("task", "modalities", "width", "shared_encoder", "calibration", "about", "state", "anchors")


@dataclass
class About:
    """The description of the model in a checkpoint.

    Attributes:
        owner: the site's name, ``fusion``, or where it was imported from.
        method, round: how and when it was trained.
        scores: validation scores, ``mdsc`` and ``dice`` by region, or None.
        clip_percent: how the images were prepared, see :class:`fedmepd.data.preparation.PreparedCases`.
        window, overlap: of the inference with which the model was validated, see
            :class:`fedmepd.config.EvaluationSettings`.
        voxel_mm, foreground_ml, intensities: what the images of the owner's training cases look like, see
            :class:`fedmepd.data.training_images.ImageMeasures`; empty in models of older versions, and where only a
            hospital knows it.
        phantoms: whether it was trained on phantoms alone; None in models of older versions.
    """

    owner: str
    method: str
    round: int
    scores: dict | None = None
    clip_percent: float = 0.0
    window: int = 80
    overlap: float = 0.5
    voxel_mm: tuple[float, ...] = ()
    foreground_ml: float = 0.0
    intensities: dict[str, tuple[float, ...]] = field(default_factory=dict)
    phantoms: bool | None = None
    version: str = field(default=__version__)

    @classmethod
    def of(
        cls,
        owner: str,
        settings: Settings,
        images: ImageMeasures,
        phantoms: bool,
        round_number: int,
        scores: dict | None,
    ) -> About:
        """Returns the description of a job's model."""
        return cls(
            owner,
            settings.method,
            round_number,
            scores,
            settings.data.clip_percent,
            settings.evaluation.window,
            settings.evaluation.overlap,
            **asdict(images),
            phantoms=phantoms,
        )


def trained_with(about: dict[str, Any]) -> ImageMeasures:
    """Returns what the images of a model's training looked like, as far as its description says it.

    Args:
        about: of :func:`describe`.
    """
    return ImageMeasures(
        tuple(about.get("voxel_mm", ())),
        about.get("foreground_ml", 0.0),
        {modality: tuple(scores) for modality, scores in about.get("intensities", {}).items()},
    )


def save_model(path: Path, network: FedMEPDNet, about: About) -> None:
    """Writes a network with its anchors and everything needed to build it again."""
    calibration = None
    if network.calibration is not None:
        first = next(iter(network.calibration.values()))
        calibration = {"residual": first.residual, "dropout": first.dropout}
    content = {
        "kind": _KIND,
        "format": FORMAT,
        "task": network.task.name,
        "task_modalities": list(network.task.modalities),
        "classes": list(network.task.classes),
        "label_maps": {
            name: {str(label): number for label, number in convention.classes.items()}
            for name, convention in network.task.conventions.items()
        },
        "modalities": list(network.modalities),
        "width": network.width,
        "shared_encoder": network.shared_encoder,
        "affine": network.affine,
        "modality_norms": network.modality_norms,
        "calibration": calibration,
        "about": asdict(about),
        "state": {key: value.contiguous() for key, value in network.state_dict().items()},
        "anchors": {str(level): rows.contiguous() for level, rows in network.anchors.items()},
    }
    save_tensors(path, content)


def describe(path: Path) -> dict:
    """Returns the description in a checkpoint: everything but the weights.

    Raises:
        CheckpointError: the file is not a fedmepd model.
    """
    content = read_model(path)
    return {key: value for key, value in content.items() if key not in ("state", "anchors")}


def load_model(path: str | Path) -> FedMEPDNet:
    """Loads a model for inference: evaluation mode, on the CPU.

    Args:
        path: a checkpoint of :func:`save_model`.

    Returns:
        the network, with its task; of a model of BraTS, ``network(images, ("FLAIR", "T2"))`` maps (B, 2, X, Y, Z) to
        class probabilities (B, 4, X, Y, Z). Its ``anchors`` belong to its weights, though ``state_dict()`` lacks them:
        :func:`save_model` keeps both.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind or version, of a task that is not known here or
            that has changed, or its weights do not fit.

    >>> import fedmepd, torch
    >>> network = fedmepd.load_model("model.pt")
    >>> network.modalities
    ('FLAIR', 'T2')
    >>> images = torch.randn(1, 2, 24, 24, 24)  # one case, z-scored inside the brain and 0 outside
    >>> network(images, ("FLAIR", "T2")).shape  # the probability of each class in each voxel
    torch.Size([1, 4, 24, 24, 24])
    """
    content = read_model(path)
    task = model_task(path, content)

    def build() -> FedMEPDNet:
        return FedMEPDNet(
            task,
            content["modalities"],
            content["width"],
            calibration=content["calibration"],
            shared_encoder=content["shared_encoder"],
            affine=content["affine"],
            modality_norms=content["modality_norms"],
        )

    check_tensors(path, content, task, build)
    network = build()
    network.load_state_dict(content["state"])
    network.anchors = {int(level): rows for level, rows in content["anchors"].items()}
    return network.eval()


def read_model(path: str | Path) -> dict:
    """Returns the content of a checkpoint, its description checked, its tensors not yet (see :func:`load_model`).

    Raises:
        CheckpointError: the file is not a fedmepd model.
    """
    content = load_tensors(Path(path), "model of fedmepd", from_outside=True)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind != _KIND:
        hint = "; import it with `fedmepd checkpoint import`" if "state_dict" in content else ""
        raise CheckpointError(f"{path} is no fedmepd model{hint}")
    found, about = content.get("format"), content.get("about")
    if not isinstance(found, int) or found != FORMAT:
        version = about.get("version", "unknown") if isinstance(about, dict) else "unknown"
        raise CheckpointError(
            f"{path} has format {plain_text(found)}, this version of fedmepd reads format {FORMAT}: install the "
            f"version that wrote it ({plain_text(version)})"
        )
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise CheckpointError(f"{path}: key {missing[0]} is missing: {DAMAGED}")
    # Older models do not say that their normalisations have no parameters.
    content = {"affine": False, "modality_norms": False} | content
    content = check_header(path, content)
    return content | {"task": _EARLIER_TASKS.get(content["task"], content["task"])}


def model_task(path: str | Path, content: dict) -> Task:
    """Returns the task of a model.

    Args:
        path: the model's file, for messages.
        content: what :func:`describe` returned of it.

    Raises:
        CheckpointError: the task is not known here, or its modalities or classes are not those of the model.
    """
    try:
        task = find_task(content["task"])
    except SettingsError as error:
        raise CheckpointError(f"{path} is a model of a task that is not known here: {error}") from error
    for key, here in (("task_modalities", task.modalities), ("classes", task.classes)):
        # Older models do not hold the modalities of their task.
        there = tuple(content.get(key, here))
        if there != here:
            raise CheckpointError(
                f"{path} is a model of task {task.name} with the {key.removeprefix('task_')} {', '.join(there)}, here "
                f"it has {', '.join(here)}: use the task's file with which it was trained"
            )
    return task
