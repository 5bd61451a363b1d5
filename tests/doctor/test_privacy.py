"""What doctor says of a site's budget of differential privacy and of the record of it."""

from __future__ import annotations

import json

from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.privacy import check_privacy
from fedmepd.job_settings import make_settings
from fedmepd.privacy.accountant import Release
from fedmepd.privacy.ledger import Ledger
from fedmepd.site_settings import SiteSettings


def checks(kit_folder, machine=None, **job) -> dict[str, tuple[str, str]]:
    machine = SiteSettings(privacy={"epsilon": 3.0, "per_run": 1.0} if machine is None else machine)
    expected = Expected(make_settings("paper", job), source="job x")
    return {check.kind: (check.status, check.text) for check in check_privacy(Kit.read(kit_folder), expected, machine)}


def test_without_differential_privacy_there_is_nothing_to_say(kit_folder) -> None:
    assert checks(kit_folder, machine={}) == {}
    # The job's budget is for one run: no record of earlier ones counts.
    assert checks(kit_folder, machine={}, privacy={"epsilon": 8}) == {}


def test_a_budget_of_which_some_is_spent(kit_folder) -> None:
    # One release of all patients with noise 4.0: by the classical bound epsilon is below sqrt(2 ln(1.25e5)) / 4 = 1.21.
    for run in ("a", "b"):
        Ledger(kit_folder / "fedmepd_privacy/privacy.json", run).add(1, [Release(4.0, 1.0, 1)], lambda *_: None)
    status, text = checks(kit_folder)["what is spent"]
    assert status == "ok" and text.endswith("of 3 at delta 1e-05 by 2 runs, at most 1 a run")
    spent = float(text.split()[1])
    assert 1 < spent < 2.5


def test_a_kit_that_has_had_runs_and_has_no_record(kit_folder) -> None:
    """A new folder for the same patients begins with the whole budget."""
    assert checks(kit_folder)["no record yet"][0] == "note"
    for trace in (kit_folder / "fedmepd_runs/study", kit_folder / "0b1c/fedmepd"):
        trace.mkdir(parents=True)
        assert checks(kit_folder)["runs, and no record of what they spent"][0] == "warning"
        trace.rmdir()
        trace.parent.rmdir()
    (kit_folder / "egress.jsonl").write_text("{}\n")
    assert "no record yet" not in checks(kit_folder)


def test_a_hospital_that_is_the_fusion_site_has_two_records(kit_folder) -> None:
    Ledger(kit_folder / "fedmepd_privacy/fusion_privacy.json", "a").add(0, [Release(4.0, 1.0, 1)], lambda *_: None)
    found = checks(kit_folder, fusion={"site": "site-1"})
    assert "what is spent" in found


def test_a_record_that_is_damaged(kit_folder) -> None:
    file = kit_folder / "fedmepd_privacy/privacy.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"runs": 5}))
    status, text = checks(kit_folder)["record that cannot be used"]
    assert status == "error" and "privacy.json" in text


def test_a_budget_that_the_first_run_may_take(kit_folder) -> None:
    assert checks(kit_folder, machine={"epsilon": 3.0})["one run may take all of it"][0] == "note"
    assert "one run may take all of it" not in checks(kit_folder)
