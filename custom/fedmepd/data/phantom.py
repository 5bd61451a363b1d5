"""The mild cohort of phantom heads, so that a federation can be tried without patient data: of task BraTS alone.

Every site has its own scanner: contrast curve, noise, blur. Otherwise its sites are alike, see
:mod:`fedmepd.data.hospitals` for a cohort whose sites are not.
"""

from __future__ import annotations

import numpy as np

from fedmepd.config import FUSION_SITE
from fedmepd.data.cases import Case
from fedmepd.data.distribution import protocol_sites
from fedmepd.data.phantom_heads import Scanner, as_label, draw_anatomy, phantom_task, scan
from fedmepd.seeds import derive_seed

# Raise this number when the same seed gives other phantoms.
RECIPE = 1

FUSION_CASES = 48
SITE_CASES = 16

SHARE_WITHOUT_ENHANCEMENT = 0.15

# What the name of every phantom begins with.
NAME = "Phantom"


def phantom_sites() -> dict[str, tuple[str, ...]]:
    """Returns the sites of the cohort, those of the paper's protocol, and the modalities of each."""
    return protocol_sites(phantom_task())


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
    return [f"{NAME}_{site}_{number:03d}" for number in range(1, count + 1)]


def is_phantom(case: Case) -> bool:
    """Whether a case is a phantom, which the names of all of its images tell wherever they lie."""
    return bool(case.images) and all(file.name.startswith(f"{NAME}_") for file in case.images.values())


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
    tissue = draw_anatomy(rng, enhancing=case not in cases_without_enhancement(site, seed))
    images = scan(rng, tissue, scanner(site, seed))
    return images, as_label(tissue)
