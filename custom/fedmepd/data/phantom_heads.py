"""Made-up heads with tumours: anatomy, contrasts and scanners, from which the phantom cohorts are made.

Anatomy, tumour and contrasts follow algorithm section 6: every modality shows what it shows in patients. The enhancing
rim is bright in T1ce alone, oedema in FLAIR and T2, necrosis is dark in T1 and T1ce, ventricles are bright in T2 and
dark in FLAIR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedmepd.errors import DataError
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task

SIDE = 48
SPACING_MM = 3.0

# The task whose classes are drawn below.
_TASK = "brats"

# Tissues; the tumour's classes follow in the task's order. The task's file has the intensity of each.
OUTSIDE, WHITE, GREY, CSF, NCR, ED, ET = range(7)

# Voxels of a thick slice.
SLICE = 3


def phantom_task() -> Task:
    """Returns the task that the phantoms are of."""
    return find_task(_TASK)


def has_phantoms(task: Task) -> bool:
    """Whether the phantoms are of a task."""
    return task.name == _TASK


def require_phantoms(task: Task) -> None:
    """Raises :class:`~fedmepd.errors.DataError` if there are no phantoms of a task."""
    if not has_phantoms(task):
        raise DataError(
            f"there are no phantoms of task {task.name}, of {_TASK} alone: set data.phantom to false and FEDMEPD_DATA "
            "to a folder of cases",
            public=f"there are no phantoms of task {task.name}",
        )


@dataclass(frozen=True)
class Scanner:
    """How the images of a site differ from those of other sites.

    Args:
        blur: standard deviation of the point spread in voxels.
        noise: standard deviation of the noise, relative to the brightest tissue.
        gamma: exponent of the contrast curve, per modality.
        gain: stored value of the brightest tissue, per modality.
        bias: standard deviation of the logarithm of the bias field.
        thick: the axis along which a modality has slices of :data:`SLICE` voxels; none for most.
    """

    blur: float
    noise: float
    gamma: dict[str, float]
    gain: dict[str, float]
    bias: float = 0.15
    thick: dict[str, int] = field(default_factory=dict)


def draw_anatomy(rng: np.random.Generator, enhancing: bool, size: float = 1.0) -> np.ndarray:
    """Returns the tissue of every voxel of a new head, uint8 (X, Y, Z).

    Args:
        rng: decides everything else.
        enhancing: whether the tumour has an enhancing rim.
        size: of its radius, relative to the usual one.
    """
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / (SIDE / 2) - 1
    position = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))

    head = rng.uniform((0.70, 0.83, 0.68), (0.80, 0.91, 0.78))
    centre, radius = _tumour_place(rng, head, size)
    tumour = _tumour_depth(rng, position, centre, radius)
    core_reach, oedema_reach = rng.uniform(0.50, 0.75), rng.uniform(1.35, 2.0)

    # Clipped, so that the brain stays inside the volume.
    depth = _norm(position, head) * (1 + 0.05 * np.maximum(_smooth_noise(rng, 7), -1.5))
    brain = depth < 1
    # Mass effect: the tumour pushes the tissue around it outwards; the skull does not move.
    offset = position - centre[:, None, None, None]
    push = rng.uniform(0.15, 0.30) * np.exp(-np.square(tumour / 1.4))
    normal = position - push * offset

    # Folds: the inner side of the grey shell is uneven, and the deepest furrows contain fluid.
    folds = _smooth_noise(rng, 1.3)
    tissue = np.where(depth > 0.80 + 0.10 * folds, GREY, WHITE)
    fissure = (np.abs(normal[0]) < 0.025) & (normal[2] > 0.05) & (depth > 0.6)
    tissue[fissure | ((depth > 0.88) & (folds < -1.3))] = CSF
    tissue[_deep_grey(normal)] = GREY
    tissue[_ventricles(rng, normal)] = CSF

    oedema = (tumour < oedema_reach) & (tissue != CSF)
    tissue[oedema] = ED
    tissue[tumour < 1] = ET if enhancing else NCR
    tissue[tumour < core_reach] = NCR
    tissue[~brain] = OUTSIDE
    return tissue.astype(np.uint8)


def _tumour_place(rng: np.random.Generator, head: np.ndarray, size: float) -> tuple[np.ndarray, float]:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    radius = size * rng.uniform(0.16, 0.34)
    # As far out as possible with the core still inside the brain, or nearly so. The mid-line is kept free for the
    # ventricles.
    reach = rng.uniform(0.35, 1.0) * np.clip(head - radius, 0.1, None)
    return (direction * reach).astype(np.float32), radius


def _tumour_depth(rng: np.random.Generator, position: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the tumour's centre; 1 on the surface of its core, an ellipsoid roughened at two scales."""
    axes = rng.uniform(0.8, 1.25, size=3)
    axes *= radius / np.prod(axes) ** (1 / 3)
    distance = _norm(position - centre[:, None, None, None], axes)
    return distance * (1 + 0.16 * _smooth_noise(rng, 4) + 0.08 * _smooth_noise(rng, 1.5))


def _ventricles(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    width, length, height = rng.uniform((0.07, 0.34, 0.10), (0.12, 0.46, 0.17))
    x, y, z = position
    found = np.zeros(x.shape, dtype=bool)
    for side in (-1, 1):
        # The horns bend outwards and downwards at the back.
        bent = (x - side * (0.13 + 0.5 * np.square(np.clip(y, 0, None))), y - 0.02, z - 0.10 + 0.35 * np.square(y))
        found |= _norm(np.stack(bent), (width, length, height)) < 1
    return found


def _deep_grey(position: np.ndarray) -> np.ndarray:
    x, y, z = position
    return _norm(np.stack([np.abs(x) - 0.24, y + 0.02, z + 0.08]), (0.11, 0.24, 0.15)) < 1


def scan(rng: np.random.Generator, tissue: np.ndarray, device: Scanner) -> dict[str, np.ndarray]:
    """Returns the images of a head in all modalities, int16 (X, Y, Z): 0 outside the brain and positive inside.

    Args:
        rng: of texture, bias field and noise.
        tissue: of :func:`draw_anatomy`.
        device: that makes the images.
    """
    from scipy.ndimage import gaussian_filter

    brain = tissue != OUTSIDE
    # Blurring within the brain only: a skull-stripped image does not fade towards its edge.
    coverage = np.maximum(gaussian_filter(brain.astype(np.float32), device.blur), 1e-3)
    texture = _smooth_noise(rng, 0.8)
    variation = rng.uniform(0.9, 1.1, size=3)
    images = {}
    for modality, intensities in phantom_task().phantom_intensities.items():
        table = np.array(intensities, dtype=np.float32)
        table[NCR:] *= variation
        image = gaussian_filter(table[tissue], device.blur) / coverage
        image *= 1 + 0.06 * (0.5 * texture + 0.866 * _smooth_noise(rng, 0.8))
        image = np.clip(image, 0, None) ** device.gamma[modality]
        image *= np.exp(device.bias * _smooth_noise(rng, 12))
        image += device.noise * rng.standard_normal(tissue.shape, dtype=np.float32)
        if modality in device.thick:
            image = _in_thick_slices(image, brain, device.thick[modality])
        stored = np.clip(np.rint(image * device.gain[modality]), 1, np.iinfo(np.int16).max)
        images[modality] = np.where(brain, stored, 0).astype(np.int16)
    return images


def _in_thick_slices(image: np.ndarray, brain: np.ndarray, axis: int) -> np.ndarray:
    """Averages the brain over each slice, and interpolates between the slices as registration does."""
    from scipy.ndimage import zoom

    def slices(volume: np.ndarray) -> np.ndarray:
        shape = list(volume.shape)
        shape[axis : axis + 1] = [shape[axis] // SLICE, SLICE]
        return volume.reshape(shape).mean(axis=axis + 1)

    coverage = slices(brain.astype(np.float32))
    means = slices(image * brain) / np.maximum(coverage, 1e-3)
    # A slice without brain must not darken the next one.
    seen = coverage > 0
    factors = [SLICE if each == axis else 1 for each in range(image.ndim)]
    weighted, weight = (
        zoom(values, factors, order=1, mode="nearest", grid_mode=True)
        for values in (means * seen, seen.astype(np.float32))
    )
    return weighted / np.maximum(weight, 1e-3)


def as_label(tissue: np.ndarray) -> np.ndarray:
    """Returns the label of a head, uint8 (X, Y, Z), with the values of the task's own convention."""
    task = phantom_task()
    tumour = task.label_of_class(task.default_convention)[1:]
    return np.array([0, 0, 0, 0, *tumour], dtype=np.uint8)[tissue]


def _norm(offset: np.ndarray, axes: np.ndarray | tuple[float, ...]) -> np.ndarray:
    scaled = offset / np.asarray(axes, dtype=np.float32)[:, None, None, None]
    return np.sqrt(np.square(scaled).sum(axis=0))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Gaussian noise of standard deviation 1 that is smooth over ``sigma`` voxels."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal((SIDE,) * 3, dtype=np.float32), sigma, truncate=3)
    return (noise - noise.mean()) / noise.std()
