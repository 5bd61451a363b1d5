"""Where a figure appears in TensorBoard: a run for each site, so that one chart has them all, and groups of charts.

TensorBoard sorts groups by name, so that these begin with numbers: scores first, the decoder's layers last.
"""

from __future__ import annotations

from fedmepd.evaluation.entries import label

# Owners of figures beside the sites: means over the sites, what concerns all, shares of personal filters by layer.
MEAN, FEDERATION, LAYERS = "mean of the sites", "federation", "personal_share"

SCORES, TRAINING, FILTERS = "1_scores", "2_training", "3_personal_filters"
COST, ROUND, BY_LAYER, CASES = "4_cost", "5_seconds_of_a_round", "6_personal_share_by_layer", "7_cases"

_GROUPS = {
    "personal_share": f"{FILTERS}/share",
    "personal_filters": f"{FILTERS}/by_site_and_layer",
    "seconds": f"{COST}/seconds",
    "bytes_up": f"{COST}/bytes_up",
    "bytes_down": f"{COST}/bytes_down",
    "sites": f"{COST}/sites_that_took_part",
}
# What a name begins with: it is replaced.
_BEGINNINGS = {
    "validation_": f"{SCORES}/validation_",
    "test_": f"{SCORES}/test_",
    "loss_": f"{TRAINING}/loss_",
    "overlay_": f"{CASES}/overlay_",
}
_SECONDS = "seconds/"


def chart_of(figure: str) -> tuple[str, str]:
    """Returns the run and the tag of a figure.

    >>> chart_of("site-1/validation_mdsc")
    ('site-1', '1_scores/validation_mdsc')
    >>> chart_of("server/loss_total")
    ('fusion site', '2_training/loss_total')

    Args:
        figure: its owner and its name, with a slash between them.
    """
    owner, _, name = figure.partition("/")
    if owner == LAYERS:
        return MEAN, f"{BY_LAYER}/{name}"
    if name.startswith(_SECONDS):
        return FEDERATION, f"{ROUND}/{name.removeprefix(_SECONDS)}"
    tag = _GROUPS.get(name) or next(
        (group + name.removeprefix(word) for word, group in _BEGINNINGS.items() if name.startswith(word)),
        # A method's own figure.
        f"{TRAINING}/{name}",
    )
    return label(owner), tag
