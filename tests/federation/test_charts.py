from __future__ import annotations

import pytest

from fedmepd.federation.charts import chart_of


@pytest.mark.parametrize(
    ("figure", "run", "tag"),
    [
        ("site-1/validation_mdsc", "site-1", "1_scores/validation_mdsc"),
        ("site-2/validation_dice_WT", "site-2", "1_scores/validation_dice_WT"),
        ("site-1/test_dice_WT", "site-1", "1_scores/test_dice_WT"),
        ("server/validation_mdsc", "fusion site", "1_scores/validation_mdsc"),
        ("mean of the sites/validation_mdsc", "mean of the sites", "1_scores/validation_mdsc"),
        ("site-1/loss_total", "site-1", "2_training/loss_total"),
        ("site-1/proximal", "site-1", "2_training/proximal"),
        ("site-1/personal_share", "site-1", "3_personal_filters/share"),
        ("federation/personal_filters", "federation", "3_personal_filters/by_site_and_layer"),
        ("site-1/seconds", "site-1", "4_cost/seconds"),
        ("site-1/bytes_up", "site-1", "4_cost/bytes_up"),
        ("federation/sites", "federation", "4_cost/sites_that_took_part"),
        ("server/seconds/site_training", "federation", "5_seconds_of_a_round/site_training"),
        ("personal_share/levels.3.fuse.conv", "mean of the sites", "6_personal_share_by_layer/levels.3.fuse.conv"),
        ("site-1/overlay_best", "site-1", "7_cases/overlay_best"),
    ],
)
def test_where_a_figure_appears(figure: str, run: str, tag: str) -> None:
    assert chart_of(figure) == (run, tag)
