"""A cohort of phantom heads whose sites differ as hospitals do: `data.phantom: hospitals`.

Of each seed, the recipe draws which site has which of these, and docs/phantoms.md describes it:

- numbers of cases: those of the paper's protocol for BraTS 2018; four of a site's cases validate, 40 % train;
- scanners: contrast exponent exp(-0.7) to exp(0.7) in each modality, blur 0.4 to 1.4 voxels, noise 2 to 10 %, bias
  field 0.1 to 0.3 (the standard deviation of its logarithm);
- thick slices: at three sites a half of the modalities has slices of three voxels, each site in another plane;
- annotators: at three sites oedema is drawn a voxel wider, at three a voxel tighter; at three the enhancing rim is a
  voxel thicker, at three a voxel thinner;
- case mix: 0 to 50 % of the cases have no enhancing tumour, and tumours have 0.8 to 1.2 times the usual radius;
- missing images: at two sites every second case lacks one of the site's modalities.

The fusion site is mild: a scanner of :mod:`fedmepd.data.phantom`, no thick slices, exact labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedmepd.config import FUSION_SITE
from fedmepd.data import phantom
from fedmepd.data.distribution import protocol_plan
from fedmepd.data.manifest import Part
from fedmepd.data.phantom import phantom_sites
from fedmepd.data.phantom_heads import (
    CSF,
    ED,
    ET,
    NCR,
    OUTSIDE,
    WHITE,
    Scanner,
    as_label,
    draw_anatomy,
    phantom_task,
    scan,
)
from fedmepd.seeds import derive_seed

# Raise this number when the same seed gives other phantoms.
RECIPE = 1

# Whose numbers of cases the sites have.
_PROTOCOL = "brats2018"
_TRAIN_SHARE, _VALIDATION = 0.4, 4
_FUSION_PARTS: dict[Part, int] = {"train": 48, "validation": 8, "test": 32}

_CONTRAST, _BLUR, _NOISE, _BIAS = 0.7, (0.4, 1.4), (0.02, 0.10), (0.1, 0.3)
_MOST_WITHOUT_ENHANCEMENT, _SIZES = 0.5, (0.8, 1.2)
_WITH_THICK_SLICES, _WITH_MISSING_IMAGES = 3, 2
_SHARE_OF_MISSING = 0.5


@dataclass(frozen=True)
class Hospital:
    """What a site is like.

    Args:
        scanner: of all its images.
        oedema: by how many voxels its annotators draw oedema wider; below 0: tighter.
        rim: by how many voxels they draw the enhancing rim thicker, at the cost of necrosis; below 0: thinner.
        without_enhancement: share of its cases without enhancing tumour.
        size: of its tumours' radius, relative to the usual one.
        lacks_images: whether every second case lacks a modality.
    """

    scanner: Scanner
    oedema: int
    rim: int
    without_enhancement: float
    size: float
    lacks_images: bool


@lru_cache(maxsize=8)
def hospitals(seed: int) -> dict[str, Hospital]:
    """Returns all sites of a seed's cohort, the fusion site last."""
    subsets = {name: modalities for name, modalities in phantom_sites().items() if name != FUSION_SITE}
    names = list(subsets)
    rng = np.random.default_rng(derive_seed(seed, "hospitals"))

    def dealt(values: np.ndarray | list[int]) -> dict[str, float]:
        return dict(zip(names, rng.permutation(values).tolist(), strict=True))

    # Of every seed: three sites draw tighter, two exactly, three wider.
    habits = [-1, -1, -1, 0, 0, 1, 1, 1]
    oedema, rim = dealt(habits), dealt(habits)
    without = dealt(np.linspace(0, _MOST_WITHOUT_ENHANCEMENT, len(names)))
    sizes = dealt(np.linspace(*_SIZES, len(names)))
    planes = dict(zip(rng.choice(names, _WITH_THICK_SLICES, replace=False).tolist(), rng.permutation(3), strict=True))
    # A case keeps one modality at least.
    several = [name for name, modalities in subsets.items() if len(modalities) > 1]
    lacking = set(rng.choice(several, _WITH_MISSING_IMAGES, replace=False).tolist())
    found = {
        name: Hospital(
            _scanner(rng, subsets[name], planes.get(name)),
            oedema[name],
            rim[name],
            without[name],
            sizes[name],
            name in lacking,
        )
        for name in names
    }
    mild = phantom.scanner(FUSION_SITE, seed)
    return found | {FUSION_SITE: Hospital(mild, 0, 0, phantom.SHARE_WITHOUT_ENHANCEMENT, 1.0, False)}


def _scanner(rng: np.random.Generator, modalities: tuple[str, ...], plane: int | None) -> Scanner:
    thick = [] if plane is None else rng.choice(modalities, (len(modalities) + 1) // 2, replace=False).tolist()
    return Scanner(
        blur=rng.uniform(*_BLUR),
        noise=rng.uniform(*_NOISE),
        gamma={name: float(np.exp(rng.uniform(-_CONTRAST, _CONTRAST))) for name in phantom_task().modalities},
        gain={name: rng.uniform(400, 1600) for name in phantom_task().modalities},
        bias=rng.uniform(*_BIAS),
        thick={name: int(plane) for name in thick},
    )


def parts(site: str) -> dict[str, Part]:
    """Returns the part of each of a site's cases, by name."""
    sizes = {plan.name: plan.cases for plan in protocol_plan(phantom_task(), _PROTOCOL)}
    counts = _FUSION_PARTS
    if site != FUSION_SITE:
        train = round(_TRAIN_SHARE * sizes[site])
        counts = {"train": train, "validation": _VALIDATION, "test": sizes[site] - train - _VALIDATION}
    of_case = [part for part, count in counts.items() for _ in range(count)]
    return {f"{phantom.NAME}_{site}_{number:03d}": part for number, part in enumerate(of_case, 1)}


def case_names(site: str) -> list[str]:
    """Returns the names of a site's cases."""
    return list(parts(site))


def cases_without_enhancement(site: str, seed: int) -> set[str]:
    """Returns the names of the site's cases without enhancing tumour, of each part the site's share."""
    rng = np.random.default_rng(derive_seed(seed, "hospitals", site, "without enhancement"))
    return _some_of_each_part(site, hospitals(seed)[site].without_enhancement, rng)


def owned_modalities(site: str, case: str, seed: int) -> tuple[str, ...]:
    """Returns the modalities that a case has: the site's, or all but one of them."""
    modalities = phantom_sites()[site]
    missing = _missing(site, seed).get(case)
    return tuple(name for name in modalities if name != missing)


@lru_cache(maxsize=32)
def _missing(site: str, seed: int) -> dict[str, str]:
    """The modality that a case lacks, of the cases that lack one."""
    if not hospitals(seed)[site].lacks_images:
        return {}
    rng = np.random.default_rng(derive_seed(seed, "hospitals", site, "missing"))
    cases = sorted(_some_of_each_part(site, _SHARE_OF_MISSING, rng))
    # Each modality is as often missing as the others.
    modalities = np.resize(rng.permutation(phantom_sites()[site]), len(cases))
    return dict(zip(cases, rng.permutation(modalities).tolist(), strict=True))


def _some_of_each_part(site: str, share: float, rng: np.random.Generator) -> set[str]:
    of_part: dict[Part, list[str]] = {}
    for name, part in parts(site).items():
        of_part.setdefault(part, []).append(name)
    chosen = (rng.choice(names, round(share * len(names)), replace=False) for names in of_part.values())
    return {name for names in chosen for name in names.tolist()}


def hospital_case(site: str, case: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Makes one case, with the images of all modalities; see :func:`fedmepd.data.phantom.phantom_case`.

    Args:
        site: a name of :func:`~fedmepd.data.phantom.phantom_sites`.
        case: a name of :func:`case_names`.
        seed: the cohort's seed.
    """
    of_site = hospitals(seed)[site]
    rng = np.random.default_rng(derive_seed(seed, "hospitals", site, case))
    tissue = draw_anatomy(rng, case not in cases_without_enhancement(site, seed), of_site.size)
    images = scan(rng, tissue, of_site.scanner)
    return images, as_label(annotated(tissue, of_site.oedema, of_site.rim))


def annotated(tissue: np.ndarray, oedema: int, rim: int) -> np.ndarray:
    """Returns a head as annotators draw its tumour.

    Args:
        tissue: as it is, (X, Y, Z), see :mod:`fedmepd.data.phantom_heads`.
        oedema, rim: see :class:`Hospital`. A rim is drawn one voxel thick at least, and where there is none, none is
            drawn.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    drawn = tissue.copy()
    tumour, core = tissue >= NCR, (tissue == NCR) | (tissue == ET)
    if oedema > 0:
        wider = binary_dilation(tumour, iterations=oedema)
        drawn[wider & ~tumour & (tissue != OUTSIDE) & (tissue != CSF)] = ED
    if oedema < 0:
        drawn[(tissue == ED) & ~binary_erosion(tumour, iterations=-oedema)] = WHITE
    enhancing, necrosis = tissue == ET, tissue == NCR
    if rim > 0 and enhancing.any():
        drawn[necrosis & binary_dilation(enhancing, iterations=rim)] = ET
    if rim < 0 and enhancing.any():
        drawn[enhancing & binary_dilation(necrosis, iterations=-rim) & binary_erosion(core)] = NCR
    return drawn
