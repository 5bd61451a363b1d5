from __future__ import annotations

import pytest

from fedmepd.evaluation.tables import console_table, markdown_table
from tests.evaluation import runs

FINISHED = """\
fedmepd: round 3 of 3, seed 7, 62 s, finished

site               modalities        cases    Dice WT  Dice TC  Dice ET   mDSC  HD95 WT  HD95 TC  HD95 ET  personal
-------------------------------------------------------------------------------------------------------------------
site-1             FLAIR T1ce        8/2/4      0.900    0.900    0.450  0.750      3.0      3.0      6.0        5%
site-2             T1                8/0/0          -        -        -      -        -        -        -        0%
site-10            T2                8/2/4      0.600    0.600    0.300  0.500      9.0      9.0     18.0       25%
-------------------------------------------------------------------------------------------------------------------
mean of the sites                               0.750    0.750    0.375  0.625      6.0      6.0     12.0       10%
fusion site        FLAIR T1ce T1 T2  24/3/12    0.840    0.840    0.420  0.700      5.0      5.0     10.0         -

Lesion by lesion: Dice, HD95 in mm, count of lesions found/missed/invented; and NSD of the whole region

site               Dice WT  Dice TC  Dice ET  HD95 WT  HD95 TC  HD95 ET  count WT  count TC  count ET  NSD WT  \
NSD TC  NSD ET
RULE
site-1               0.450    0.450    0.450     30.0     30.0     30.0     4/1/0     4/1/1     4/1/2   0.900  \
 0.900   0.450
site-2                   -        -        -        -        -        -         -         -         -       -  \
     -       -
site-10              0.300    0.300    0.300     90.0     90.0     90.0     4/1/0     4/1/1     4/1/2   0.600  \
 0.600   0.300
RULE
mean of the sites    0.375    0.375    0.375     60.0     60.0     60.0     8/2/0     8/2/2     8/2/4   0.750  \
 0.750   0.375
fusion site          0.420    0.420    0.420     50.0     50.0     50.0     4/1/0     4/1/1     4/1/2   0.840  \
 0.840   0.420

cases: for training/validation/test; Dice: 1 is best; mDSC: mean Dice of the regions; HD95: distance in mm, 0 is best; \
personal: share of the decoder's filters that a site keeps for itself
WT: whole tumour; TC: tumour core; ET: enhancing tumour
in 3 of 20 test cases label or segmentation has no ET: Dice 1, HD95 0 mm if both have none, else Dice 0, \
HD95 373.13 mm (site-10 2, fusion site 1)
not tested, and not in the mean: site-2
lesion scores: mean over the lesions, a missed or invented one with Dice 0 and 374 mm; the label grows by 3 voxels \
before its lesions are told apart; lesions of fewer than 50 voxels are left out; lesions are counted over all cases; \
NSD: normalised surface Dice at 1 mm
site-10: took part in round 1, 3; without round 2 (out of memory)
the other sites took part in every round
seconds of an average round: 16.5 (site training 10.0, fusion training 5.0, saving 1.5); \
all but training and evaluation: 10% of the training; start-up 10.0, final test 5.0
""".replace("RULE", 125 * "-")


def test_a_finished_run() -> None:
    assert console_table(runs.finished()) == FINISHED


def test_lesions_of_phantoms_say_little() -> None:
    told = "voxels of 1 mm, those of the phantoms have 3 mm"
    assert told in console_table(runs.finished() | {"source": "phantom"})
    assert told not in console_table(runs.finished() | {"source": "folder"})


def test_a_run_of_an_older_version_has_no_table_of_lesions() -> None:
    run = runs.finished()
    for entry in (run["server"], *run["sites"]):
        if entry["test"]:
            entry["test"] = {key: value for key, value in entry["test"].items() if key not in ("nsd", "lesions")}
    assert "esion" not in console_table(run) + markdown_table(run)


def test_a_running_run_shows_validation_and_says_so() -> None:
    table = console_table(runs.running())
    lines = {line.split("  ")[0]: line.split() for line in table.splitlines()}
    assert "round 2 of 3" in table and ", not finished" in table and "running" not in table
    assert lines["site-1"][-8:] == ["0.700"] * 4 + ["-"] * 3 + ["5%"]
    assert lines["site-2"][-8:] == ["-"] * 7 + ["0%"]
    assert lines["mean of the sites"][-8:] == ["0.600"] * 4 + ["-"] * 3 + ["10%"]
    assert lines["fusion site"][-8:] == ["0.800"] * 4 + ["-"] * 4
    assert "not finished: these are scores on the validation cases, of round 3" in table
    assert "373.13" not in table


def test_validations_of_different_rounds() -> None:
    run = runs.running()
    run["sites"][0]["validation"]["round"] = 1
    assert "of rounds 1 to 3" in console_table(run)


def test_before_the_first_validation() -> None:
    run = runs.running()
    for entry in (run["server"], *run["sites"]):
        entry["validation"] = None
    run["mean"]["validation"] = {"mdsc": None, "dice": None}
    assert "of which none are there yet" in console_table(run)


@pytest.mark.parametrize(("phantom", "cohort"), [(True, "mild"), ("hospitals", "hospitals")])
def test_the_cohort_of_phantoms_is_named(phantom: bool | str, cohort: str) -> None:
    run = runs.finished()
    note = f"the cases are phantoms (cohort {cohort}): nothing here is about patients"
    assert note not in console_table(run)
    run["source"], run["settings"]["data"]["phantom"] = "phantom", phantom
    assert note in console_table(run) and f"- {note}\n" in markdown_table(run)


def test_no_empty_case() -> None:
    run = runs.finished()
    for entry in (run["server"], *run["sites"]):
        if entry["test"]:
            entry["test"]["empty"] = {"WT": 0, "TC": 0, "ET": 0}
    assert "every region is in every test case, and was found there" in console_table(run).splitlines()


def test_where_a_region_is_empty() -> None:
    """Sites that report the scores of their cases let the table say whether label or model has no such region."""
    run = runs.finished()
    missing = {"label": 2, "prediction": 1, "both": 1}
    cases = [{"empty": {"WT": None, "TC": None, "ET": kind}} for kind, count in missing.items() for _ in range(count)]
    by_name = {entry["name"]: entry for entry in (*run["sites"], run["server"])}
    by_name["site-1"] |= {"test_cases": cases}
    by_name["site-1"]["test"]["empty"]["ET"] = 4
    by_name["server"] |= {"test_cases": cases[:1]}
    lines = console_table(run).splitlines()
    penalty = "Dice 0, HD95 373.13 mm"
    for line in (
        f"in 3 of 20 test cases the label has no ET, but the model found some: {penalty} (site-1 2, fusion site 1)",
        f"in 1 of 20 test cases the label has ET, but the model found none: {penalty} (site-1 1)",
        "in 1 of 20 test cases neither label nor segmentation has ET: Dice 1, HD95 0 mm (site-1 1)",
        "in 2 of 20 test cases label or segmentation has no ET: Dice 1, HD95 0 mm if both have none, else "
        f"{penalty} (site-10 2)",
    ):
        assert line in lines


def test_no_note_on_time_before_the_first_round() -> None:
    run = runs.running()
    run["timing"] = {**run["timing"], "mean_round": None}
    assert "average round" not in console_table(run)


def test_overhead_of_a_run_without_training() -> None:
    run = runs.finished()
    run["timing"] = {**run["timing"], "overhead": {"seconds": 1.5, "share_of_training": None}}
    assert "saving 1.5); start-up 10.0" in console_table(run)


def test_a_named_run() -> None:
    assert console_table({**runs.finished(), "run_name": "pilot"}).startswith("fedmepd pilot: round 3 of 3")


def test_markdown() -> None:
    lines = markdown_table(runs.finished()).splitlines()
    assert lines[0] == "# fedmepd: round 3 of 3, seed 7, 62 s, finished"
    everything = [line for line in lines if line.startswith("|")]
    table, lesions = everything[: len(everything) // 2], everything[len(everything) // 2 :]
    assert {line.count("|") for line in lesions} == {14} and lesions[2].startswith("| site-1 | 0.450 |")
    assert {line.count("|") for line in table} == {12}
    assert table[0] == (
        "| site | modalities | cases | Dice WT | Dice TC | Dice ET | mDSC | HD95 WT | HD95 TC | HD95 ET | personal |"
    )
    assert table[2] == "| site-1 | FLAIR T1ce | 8/2/4 | 0.900 | 0.900 | 0.450 | 0.750 | 3.0 | 3.0 | 6.0 | 5% |"
    assert table[-2].startswith("| mean of the sites |  |  | 0.750 |")
    assert "- site-10: took part in round 1, 3; without round 2 (out of memory)" in lines


def test_who_took_part() -> None:
    run = runs.finished()
    for site in run["sites"]:
        site["rounds_missed"] = []
    assert "every site took part in every round" in console_table(run)
    without = console_table(run | {"left_out": [{"name": "site-9", "reason": "a label is missing"}]})
    assert "\nsite-9: took no part (a label is missing)\nthe other sites took part in every round\n" in without
    late, broken, absent = run["sites"]
    late |= {"joined": 3, "rounds_taken": [3]}
    reasons = {1: "out of memory", 2: "not connected", 3: "not connected", 4: "out of memory"}
    broken |= {"rounds_taken": [5, 6, 7, 9], "rounds_missed": [{"round": r, "reason": w} for r, w in reasons.items()]}
    absent |= {"rounds_taken": [], "rounds_missed": [{"round": r, "reason": "not connected"} for r in (1, 2, 3)]}
    lines = console_table(run).splitlines()
    assert "site-1: joined in round 3; took part in round 3" in lines
    assert (
        "site-2: took part in round 5-7, 9; without round 1, 4 (out of memory); without round 2-3 (not connected)"
        in lines
    )
    assert "site-10: took part in round none; without round 1-3 (not connected)" in lines
    assert not any("every round" in line for line in lines)


def test_updates_that_were_scaled_down() -> None:
    run = runs.finished()
    run["sites"][0]["limited"] = [{"round": 1, "times_median": 12.5}, {"round": 2, "times_median": 999.0}]
    line = "site-1: update scaled down in round 1-2: up to 999 times the median site's size"
    assert line in console_table(run).splitlines()
    run["sites"][0]["limited"] += [{"round": number, "times_median": 2.0, "filters": number} for number in (4, 5)]
    lines = console_table(run).splitlines()
    assert line in lines and "site-1: single filters scaled down in round 4-5: up to 5 of its update" in lines


def test_rounds_without_fusion_training() -> None:
    run = runs.finished()
    assert "without fusion training" not in console_table(run)
    reasons = {2: "no answer in time", 3: "no answer in time", 5: "out of memory"}
    run["server"]["rounds_missed"] = [{"round": number, "reason": reason} for number, reason in reasons.items()]
    line = "without fusion training: round 2-3 (no answer in time); round 5 (out of memory)"
    assert line in console_table(run).splitlines() and f"- {line}" in markdown_table(run).splitlines()


def test_why_a_site_is_not_tested() -> None:
    run = runs.finished()
    run["sites"][1]["untested"] = "no answer in time"
    assert "not tested, and not in the mean: site-2 (no answer in time)" in console_table(run)
    run["server"] |= {"test": None, "untested": "it was away"}
    assert "site-2 (no answer in time), fusion site (it was away)" in console_table(run)


def test_a_reason_of_a_site_is_no_html_in_the_page() -> None:
    """results.md is shown by programs that also show HTML; a bar would end a cell."""
    run = runs.finished()
    evil = "x | <img src=http://elsewhere/x.png>"
    run["sites"][0] |= {"untested": evil, "test": None, "modalities": [evil]}
    page = markdown_table(run)
    assert "<img" not in page and page.count("x \\| &lt;img src=http://elsewhere/x.png>") == 2
