from collections import Counter
from itertools import pairwise
from math import ceil, floor

import pytest

from fedmepd.data.cases import Case
from fedmepd.data.distribution import SitePlan, deal, protocol_plan, protocol_sites, read_plan, read_site_lists
from fedmepd.errors import DataError, SettingsError
from fedmepd.tasks.brats import BRATS

ALL = dict.fromkeys(BRATS.modalities, None)


def cohort(count, institutions=("CBICA", "TCIA01", "2013")):
    """Cases of three institutions, with tumours of 1 ml, 2 ml, ..."""
    cases = [
        Case(f"case-{number:03d}", ALL, None, institution=institutions[number % len(institutions)], task=BRATS)
        for number in range(count)
    ]
    return cases, {case.name: float(number + 1) for number, case in enumerate(cases)}


def plan(**sizes):
    return [SitePlan(name, BRATS.modalities, size) for name, size in sizes.items()]


def test_the_papers_sites_of_brats_2018():
    sites = protocol_plan(BRATS, "brats2018")
    assert [(site.name, site.cases) for site in sites] == [
        ("fusion", 88),
        *zip((f"site-{number}" for number in range(1, 9)), (20, 22, 20, 22, 21, 22, 34, 35), strict=True),
    ]
    assert {site.name: site.modalities for site in sites} == protocol_sites(BRATS)
    cases, volumes = cohort(285)
    dealt = deal(cases, volumes, sites, 0)
    assert {name: len(of_site) for name, of_site in dealt.items()} == {site.name: site.cases for site in sites}
    names = [case.name for of_site in dealt.values() for case in of_site]
    assert len(names) == len(set(names)) == 284


def test_brats_2020_has_the_same_proportions():
    sizes = {site.name: site.cases for site in protocol_plan(BRATS, "brats2020")}
    assert sum(sizes.values()) == 369
    for site in protocol_plan(BRATS, "brats2018"):
        exact = site.cases / 284 * 369
        assert floor(exact) <= sizes[site.name] <= ceil(exact)


def test_every_site_gets_its_share_of_institutions_and_tumour_sizes():
    cases, volumes = cohort(240)
    dealt = deal(cases, volumes, plan(fusion=120, a=80, b=40), 0)
    for name, share in (("fusion", 1 / 2), ("a", 1 / 3), ("b", 1 / 6)):
        institutions = Counter(case.institution for case in dealt[name])
        quarters = Counter(int((volumes[case.name] - 1) // 60) for case in dealt[name])
        assert all(abs(institutions[place] - share * 80) <= 1 for place in ("CBICA", "TCIA01", "2013"))
        assert all(abs(quarters[quarter] - share * 60) <= 3 for quarter in range(4))


def test_dealing_depends_on_the_seed_and_not_on_the_order():
    cases, volumes = cohort(40)
    sites = plan(a=20, b=15)
    assert deal(cases, volumes, sites, 0) == deal(cases[::-1], volumes, sites, 0)
    assert deal(cases, volumes, sites, 0) != deal(cases, volumes, sites, 1)


def test_patients_of_several_examinations_stay_together():
    cases = [
        Case(f"p{number}_{scan}", ALL, None, patient=f"p{number}", task=BRATS)
        for number in range(12)
        for scan in range(3)
    ]
    cases += [Case(f"q{number}", ALL, None, task=BRATS) for number in range(4)]
    dealt = deal(cases, dict.fromkeys((case.name for case in cases), 1.0), plan(a=19, b=13, c=8), 0)
    assert [len(dealt[name]) for name in "abc"] == [19, 13, 8]
    patients = [{case.patient for case in dealt[name]} for name in "abc"]
    assert sum(len(of_site) for of_site in patients) == 16


def test_a_site_gets_only_cases_with_its_modalities():
    full, volumes = cohort(10)
    partial = [Case(f"partial-{number}", {"T2": None}, None, task=BRATS) for number in range(10)]
    volumes |= {case.name: 1.0 for case in partial}
    sites = [SitePlan("all", BRATS.modalities, 10), SitePlan("t2", ("T2",), 10)]
    dealt = deal([*full, *partial], volumes, sites, 0)
    assert dealt["all"] == full and dealt["t2"] == partial
    with pytest.raises(DataError, match="site all gets 10 of 11 cases.*have FLAIR, T1ce, T1, T2"):
        deal([*full, *partial], volumes, [SitePlan("all", BRATS.modalities, 11)], 0)


def test_too_few_cases():
    cases, volumes = cohort(10)
    with pytest.raises(DataError, match="found 10 labelled cases, expected at least 284"):
        deal(cases, volumes, protocol_plan(BRATS, "brats2018"), 0)


SITES = """
sites:
  - name: fusion
    modalities: [FLAIR, T1ce, T1, T2]
    share: 0.5
  - name: north
    modalities: [T2, FLAIR]
    share: 0.25
  - {name: south, modalities: [T1ce], cases: 7}
"""


def test_sites_of_ones_own(tmp_path):
    (tmp_path / "sites.yaml").write_text(SITES)
    assert read_plan(BRATS, tmp_path / "sites.yaml", 50) == [
        SitePlan("fusion", BRATS.modalities, 25),
        # 12.5 and 12.5 left over: the rounding is the site's or the rest's, by the order in the file.
        SitePlan("north", ("FLAIR", "T2"), 13),
        SitePlan("south", ("T1ce",), 7),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "cannot be read as YAML"),
        ("sites: []", "sites: list should have at least 1 item"),
        ("hospitals: []", "sites"),
        ("sites: [{name: a, modalities: [CT], cases: 1}]", "unknown modality 'CT'"),
        ("sites: [{name: a, modalities: [T1]}]", "expected either share or cases"),
        ("sites: [{name: a, modalities: [T1], cases: 1, share: 0.1}]", "expected either share or cases"),
        ("sites: [{name: ../a, modalities: [T1], cases: 1}]", "name"),
        ("sites: [{name: a, modalities: [T1], cases: 1}, {name: a, modalities: [T2], cases: 1}]", "two sites of one"),
        ("sites: [{name: a, modalities: [T1], share: 0.7}, {name: b, modalities: [T2], share: 0.7}]", "sum to 1.4"),
        ("sites: [{name: a, modalities: [T1], share: 0.001}]", "site a would get no case of 50"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
    ],
)
def test_sites_that_make_no_sense(tmp_path, text, expected):
    (tmp_path / "sites.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        read_plan(BRATS, tmp_path / "sites.yaml", 50)
    assert expected in str(error.value) and "sites.yaml" in str(error.value)


LISTS = ("server", *(f"c{number}" for number in range(1, 9)))


def write_lists(folder, **replaced):
    lines = {name: [f"case-{place:03d}", f"case-{place + 9:03d}"] for place, name in enumerate(LISTS)} | replaced
    for name, cells in lines.items():
        (folder / f"{name}.csv").write_text("\n".join(cells) + "\n")
    return folder


def test_published_lists(tmp_path):
    """Names alone, behind folders, with the ending of a file, below a head, in another case."""
    cases, _ = cohort(20)
    odd = ["name", "HGG/case-000", "CASE-009.nii.gz", "case-009"]
    sites, dealt = read_site_lists(BRATS, write_lists(tmp_path, server=odd), cases)
    assert [(site.name, site.cases) for site in sites] == [
        (name, 2) for name in ("fusion", *list(protocol_sites(BRATS))[:8])
    ]
    assert {site.name: site.modalities for site in sites} == protocol_sites(BRATS)
    assert [case.name for case in dealt["fusion"]] == ["case-000", "case-009"]
    assert [case.name for case in dealt["site-8"]] == ["case-008", "case-017"]
    assert all(one.name < other.name for of_site in dealt.values() for one, other in pairwise(of_site))


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        (
            {"c3": ["case-003", "nobody", "case-999"]},
            "c3.csv: the data set has no labelled case for 2 of its 3 names.*nobody, case-999",
        ),
        ({"c3": ["case-000"]}, "c3.csv: the patient of case-000 is in server.csv too"),
        ({"c3": ["name"]}, "c3.csv is empty"),
        (None, "c8.csv does not exist: expected the lists .*, c8.csv$"),
    ],
)
def test_published_lists_that_do_not_fit(tmp_path, replaced, expected):
    write_lists(tmp_path, **(replaced or {}))
    if replaced is None:
        (tmp_path / "c8.csv").unlink()
    with pytest.raises(DataError, match=expected):
        read_site_lists(BRATS, tmp_path, cohort(20)[0])
