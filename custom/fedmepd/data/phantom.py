"""A cohort of phantom heads with tumours, so that a federation can be tried without patient data: of task BraTS alone.

Anatomy, tumour and contrasts follow algorithm section 6: every modality shows what it shows in patients. The enhancing
rim is bright in T1ce alone, oedema in FLAIR and T2, necrosis is dark in T1 and T1ce, ventricles are bright in T2 and
dark in FLAIR. Every site has its own scanner: contrast curve, bias field, noise, blur. The cohort is written in BraTS
2020's layout, and read back like real data.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmepd.config import FUSION_SITE
from fedmepd.data.cases import Case
from fedmepd.data.distribution import protocol_sites
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.seeds import derive_seed
from fedmepd.storage import locked, read_json
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task

# Raise this number when the same seed gives other phantoms.
RECIPE = 1

SIDE = 48
SPACING_MM = 3.0

FUSION_CASES = 48
SITE_CASES = 16

# The task whose classes are drawn below.
_TASK = "brats"

SHARE_WITHOUT_ENHANCEMENT = 0.15

# What the name of every phantom begins with.
_NAME = "Phantom"

# Tissues; the tumour's classes follow in the task's order. The task's file has the intensity of each.
_OUTSIDE, _WHITE, _GREY, _CSF, _NCR, _ED, _ET = range(7)


def phantom_task() -> Task:
    """Returns the task that the phantoms are of."""
    return find_task(_TASK)


def phantom_sites() -> dict[str, tuple[str, ...]]:
    """Returns the sites of the cohort, those of the paper's protocol, and the modalities of each."""
    return protocol_sites(phantom_task())


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
    """

    blur: float
    noise: float
    gamma: dict[str, float]
    gain: dict[str, float]


def scanner(site: str, seed: int) -> Scanner:
    """Returns the scanner of a site."""
    rng = np.random.default_rng(derive_seed(seed, "phantom", site, "scanner"))
    return Scanner(
        blur=rng.uniform(0.4, 0.8),
        noise=rng.uniform(0.02, 0.05),
        gamma={modality: rng.uniform(0.85, 1.2) for modality in phantom_task().modalities},
        gain={modality: rng.uniform(400, 1600) for modality in phantom_task().modalities},
    )


def case_names(site: str) -> list[str]:
    """Returns the names of a site's phantom cases."""
    count = FUSION_CASES if site == FUSION_SITE else SITE_CASES
    return [f"{_NAME}_{site}_{number:03d}" for number in range(1, count + 1)]


def is_phantom(case: Case) -> bool:
    """Whether a case is a phantom, which the names of all of its images tell wherever they lie."""
    return bool(case.images) and all(file.name.startswith(f"{_NAME}_") for file in case.images.values())


def cases_without_enhancement(site: str, seed: int) -> set[str]:
    """Returns the names of the site's cases without enhancing tumour, a fixed share of them."""
    names = case_names(site)
    rng = np.random.default_rng(derive_seed(seed, "phantom", site, "without enhancement"))
    return set(rng.choice(names, round(SHARE_WITHOUT_ENHANCEMENT * len(names)), replace=False).tolist())


def phantom_case(site: str, case: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Makes one case.

    Args:
        site: a name of :func:`phantom_sites`.
        case: a name of :func:`case_names`.
        seed: the cohort's seed.

    Returns:
        The images of all four modalities, int16 (X, Y, Z), 0 outside the brain and positive inside, and the label,
        uint8 (X, Y, Z) with the values 0, 1, 2, 4. Axes point left, posterior, superior, as in BraTS.
    """
    rng = np.random.default_rng(derive_seed(seed, "phantom", site, case))
    tissue = _draw_anatomy(rng, enhancing=case not in cases_without_enhancement(site, seed))
    images = _scan(rng, tissue, scanner(site, seed))
    label_of_tissue = np.array([0, 0, 0, 0, *_labels()[1:]], dtype=np.uint8)
    return images, label_of_tissue[tissue]


def _labels() -> tuple[int, ...]:
    task = phantom_task()
    return task.label_of_class(task.default_convention)


def _draw_anatomy(rng: np.random.Generator, enhancing: bool) -> np.ndarray:
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / (SIDE / 2) - 1
    position = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))

    head = rng.uniform((0.70, 0.83, 0.68), (0.80, 0.91, 0.78))
    centre, radius = _tumour_place(rng, head)
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
    tissue = np.where(depth > 0.80 + 0.10 * folds, _GREY, _WHITE)
    fissure = (np.abs(normal[0]) < 0.025) & (normal[2] > 0.05) & (depth > 0.6)
    tissue[fissure | ((depth > 0.88) & (folds < -1.3))] = _CSF
    tissue[_deep_grey(normal)] = _GREY
    tissue[_ventricles(rng, normal)] = _CSF

    oedema = (tumour < oedema_reach) & (tissue != _CSF)
    tissue[oedema] = _ED
    tissue[tumour < 1] = _ET if enhancing else _NCR
    tissue[tumour < core_reach] = _NCR
    tissue[~brain] = _OUTSIDE
    return tissue.astype(np.uint8)


def _tumour_place(rng: np.random.Generator, head: np.ndarray) -> tuple[np.ndarray, float]:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    radius = rng.uniform(0.16, 0.34)
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


def _scan(rng: np.random.Generator, tissue: np.ndarray, device: Scanner) -> dict[str, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    brain = tissue != _OUTSIDE
    # Blurring within the brain only: a skull-stripped image does not fade towards its edge.
    coverage = np.maximum(gaussian_filter(brain.astype(np.float32), device.blur), 1e-3)
    texture = _smooth_noise(rng, 0.8)
    variation = rng.uniform(0.9, 1.1, size=3)
    images = {}
    for modality, intensities in phantom_task().phantom_intensities.items():
        table = np.array(intensities, dtype=np.float32)
        table[_NCR:] *= variation
        image = gaussian_filter(table[tissue], device.blur) / coverage
        image *= 1 + 0.06 * (0.5 * texture + 0.866 * _smooth_noise(rng, 0.8))
        image = np.clip(image, 0, None) ** device.gamma[modality]
        image *= np.exp(0.15 * _smooth_noise(rng, 12))
        image += device.noise * rng.standard_normal(tissue.shape, dtype=np.float32)
        stored = np.clip(np.rint(image * device.gain[modality]), 1, np.iinfo(np.int16).max)
        images[modality] = np.where(brain, stored, 0).astype(np.int16)
    return images


def _norm(offset: np.ndarray, axes: np.ndarray | tuple[float, ...]) -> np.ndarray:
    scaled = offset / np.asarray(axes, dtype=np.float32)[:, None, None, None]
    return np.sqrt(np.square(scaled).sum(axis=0))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Gaussian noise of standard deviation 1 that is smooth over ``sigma`` voxels."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal((SIDE,) * 3, dtype=np.float32), sigma, truncate=3)
    return (noise - noise.mean()) / noise.std()


def ensure_site(root: Path, site: str, seed: int) -> Path:
    """Makes the phantom cases of one site, unless they exist already.

    Args:
        root: folder that holds one sub-folder per site; made when missing.
        site: a name of :func:`phantom_sites`.
        seed: the cohort's seed; site and case names do the rest.

    Returns:
        ``root/site``, with a folder per case: ``Phantom_site-1_001/Phantom_site-1_001_flair.nii.gz``.

    Raises:
        DataError: the site has no phantom, the folder cannot be written, or it holds anything else.
    """
    if site not in phantom_sites():
        raise DataError(
            f"there is no phantom of site {site!r}: expected one of {', '.join(phantom_sites())}; "
            "set FEDMEPD_DATA for a site with data of its own"
        )
    folder = Path(root) / site
    try:
        # One process at a time: the others wait, then find the site complete.
        with locked(folder.parent / f".{site}.lock", None):
            if not folder.exists():
                _build(folder, site, seed)
    except (OSError, FedMEPDError) as error:
        raise DataError(
            f"cannot make the phantom of {site} in {root}: {error}. The phantoms of a job are kept in FEDMEPD_CACHE: "
            "free space there, or set it to another folder",
            public=f"the phantom of {site} cannot be written",
        ) from error
    _check_complete(folder, site, seed)
    return folder


def _build(folder: Path, site: str, seed: int) -> None:
    partial = folder.parent / f".{site}.part"
    # Remains of a killed process. The lock guarantees that nobody else is writing there.
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for case in case_names(site):
            _write_case(partial / case, site, case, seed)
        (partial / "phantom.json").write_text(json.dumps(_description(site, seed)) + "\n")
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_case(folder: Path, site: str, case: str, seed: int) -> None:
    import nibabel

    images, label = phantom_case(site, case, seed)
    files = _files(site, case)
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    affine[1, 3] = SPACING_MM * (SIDE - 1)
    folder.mkdir(parents=True)
    for modality, file in files.items():
        volume = label if modality is None else images[modality]
        nibabel.save(nibabel.Nifti1Image(volume, affine), folder / file)


def _files(site: str, case: str) -> dict[str | None, str]:
    """The name of the file of each modality, and of the label (None)."""
    return {kind: phantom_task().file_name(case, kind) for kind in (*phantom_sites()[site], None)}


def _description(site: str, seed: int) -> dict[str, int | str]:
    return {"recipe": RECIPE, "site": site, "seed": seed}


def _check_complete(folder: Path, site: str, seed: int) -> None:
    files = (folder / case / file for case in case_names(site) for file in _files(site, case).values())
    missing = next((file for file in files if not file.is_file()), None)
    try:
        description = read_json(folder / "phantom.json", "a phantom's description")
    except FedMEPDError:
        description = None
    if missing is not None or description != _description(site, seed):
        raise DataError(
            f"{folder} is not the phantom of {site} with seed {seed}"
            + (f" ({missing.name} is missing)" if missing is not None else "")
            + ": remove that folder, or choose another",
            public=f"the phantom of {site} is damaged",
        )
