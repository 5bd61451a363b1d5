"""Estimates against what a site really leaves on disk."""

import pytest

from fedmepd.data.preparation import PreparedCases
from fedmepd.doctor.needs import GIB, prepared_need, run_need
from tests import tiny as cohort
from tests.federation import drive


def test_disk_covers_what_a_run_leaves(tiny, tmp_path):
    """After a round: a state (three times the weights) and two models; at a time there may be three and three."""
    settings = cohort.settings(rounds=1)
    server, sites = drive.make(tiny, settings, tmp_path)
    drive.play(server, sites, 1)
    for name in cohort.SITES:
        left = sum(file.stat().st_size for file in (tmp_path / name).glob("*.pt"))
        need = run_need(settings, cohort.MODALITIES[name]) - 2 * GIB
        assert left == pytest.approx(need * 5 / 12, rel=0.1), name
    left = sum(file.stat().st_size for file in (tmp_path / "server").glob("*.pt"))
    assert left < run_need(settings, cohort.MODALITIES["fusion"]) - 2 * GIB


def test_prepared_cases(tiny, tmp_path):
    data = tiny.data("fusion")
    prepared = PreparedCases(data.train, tmp_path)
    for number in range(len(prepared)):
        prepared[number]
    left = sum(file.stat().st_size for file in tmp_path.glob("*.pt"))
    # 18 x 16 x 20 voxels; tiny volumes keep a fixed part beside, which is less than 20 KB a case.
    need = prepared_need([(18 * 16 * 20, 4)] * len(prepared))
    assert need == len(prepared) * 18 * 16 * 20 * 9 // 2
    assert left < 2 * need + len(prepared) * 20_000
    # A head of BraTS' size takes 34 MB (docs/data.md).
    assert 34e6 < prepared_need([(240 * 240 * 155, 4)]) < 45e6
