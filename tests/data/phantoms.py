"""Folders that look like finished phantoms, made at once."""

import json
from pathlib import Path

import numpy as np

from fedmepd.data.phantom import RECIPE, case_names, phantom_sites
from fedmepd.data.phantom_heads import phantom_task
from tests.data.files import save


def stand_in(root: Path, site: str, seed: int) -> Path:
    """Makes a site's phantom with the files and the description that a real one has; small images of noise."""
    rng = np.random.default_rng(0)
    for case in case_names(site):
        for kind in (*phantom_sites()[site], None):
            volume = rng.integers(1, 3 if kind is None else 100, (12, 12, 12))
            save(root / site / case / phantom_task().file_name(case, kind), volume.astype("uint8"))
    (root / site / "phantom.json").write_text(json.dumps({"recipe": RECIPE, "site": site, "seed": seed}))
    return root / site
