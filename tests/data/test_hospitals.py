from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedmepd.data import hospitals
from fedmepd.data.hospitals import (
    annotated,
    case_names,
    cases_without_enhancement,
    hospital_case,
    owned_modalities,
    parts,
)
from fedmepd.data.phantom import phantom_sites
from fedmepd.data.phantom_cohorts import HOSPITALS, MILD, cohort_folder, cohort_of, ensure_site
from fedmepd.data.phantom_heads import CSF, ED, ET, NCR, OUTSIDE, WHITE, Scanner, scan
from fedmepd.data.site import open_fusion_data, open_site_data
from fedmepd.errors import DataError, SettingsError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings

SEED = 3
SITES = [name for name in phantom_sites() if name != "fusion"]


def small(site, case, seed):
    """Stands in for a case: small images of noise."""
    rng = np.random.default_rng(int(case[-3:]))
    images = {name: rng.integers(1, 99, (12, 12, 12), dtype="uint8") for name in ("FLAIR", "T1ce", "T1", "T2")}
    return images, rng.choice(np.array([0, 1, 2, 4], dtype="uint8"), (12, 12, 12))


def opened(cache, site, data):
    """Opens a site of a cohort with small images."""
    ensure_site(cohort_folder(cache, HOSPITALS, SEED), site, SEED, replace(HOSPITALS, make=small))
    settings = make_settings("phantom", {"seed": SEED, "data": {"phantom": "hospitals"} | data})
    machine = SiteSettings(cache=cache)
    return open_fusion_data("", settings, machine) if site == "fusion" else open_site_data(site, settings, machine)


def test_numbers_of_cases():
    """The paper's for BraTS 2018: 88 at the fusion site, and 20, 22, 20, 22, 21, 22, 34, 35."""
    counts = {site: Counter(parts(site).values()) for site in phantom_sites()}
    assert [counts[site].total() for site in SITES] == [20, 22, 20, 22, 21, 22, 34, 35]
    assert all(counts[site]["validation"] == 4 for site in SITES)
    assert [counts[site]["train"] for site in SITES] == [8, 9, 8, 9, 8, 9, 14, 14]
    assert counts["fusion"] == {"train": 48, "validation": 8, "test": 32}
    assert case_names("site-1")[::19] == ["Phantom_site-1_001", "Phantom_site-1_020"]


@pytest.mark.parametrize("seed", range(4))
def test_what_sites_are_like(seed):
    found = hospitals.hospitals(seed)
    of_sites = [found[site] for site in SITES]
    for habit in ("oedema", "rim"):
        assert Counter(getattr(each, habit) for each in of_sites) == {-1: 3, 0: 2, 1: 3}
    assert sorted(each.without_enhancement for each in of_sites) == pytest.approx([number / 14 for number in range(8)])
    assert sorted(each.size for each in of_sites)[:: len(of_sites) - 1] == [0.8, 1.2]
    thick = {site: found[site].scanner.thick for site in SITES if found[site].scanner.thick}
    assert sorted(axis for of_site in thick.values() for axis in {*of_site.values()}) == [0, 1, 2]
    assert all(set(of_site) <= set(phantom_sites()[site]) for site, of_site in thick.items())
    for each in of_sites:
        assert all(np.exp(-0.7) < exponent < np.exp(0.7) for exponent in each.scanner.gamma.values())
        assert 0.4 < each.scanner.blur < 1.4 and 0.02 < each.scanner.noise < 0.1 and 0.1 < each.scanner.bias < 0.3
    fusion = found["fusion"]
    assert (fusion.oedema, fusion.rim, fusion.size, fusion.scanner.thick, fusion.lacks_images) == (0, 0, 1.0, {}, False)
    assert fusion.scanner.noise < 0.05 and all(0.8 < exponent < 1.25 for exponent in fusion.scanner.gamma.values())


def test_the_seed_decides_who_is_how():
    assert hospitals.hospitals(0) == hospitals.hospitals(0) != hospitals.hospitals(1)
    assert len({tuple(each.oedema for each in hospitals.hospitals(seed).values()) for seed in range(5)}) > 3


def test_shares_of_every_part():
    for site in phantom_sites():
        share, without = hospitals.hospitals(SEED)[site].without_enhancement, cases_without_enhancement(site, SEED)
        for part, count in Counter(parts(site).values()).items():
            assert sum(parts(site)[name] == part for name in without) == round(share * count)


def test_images_that_are_missing():
    lacking = [site for site in SITES if hospitals.hospitals(SEED)[site].lacks_images]
    assert len(lacking) == 2
    for site, modalities in phantom_sites().items():
        owned = {case: owned_modalities(site, case, SEED) for case in case_names(site)}
        short = [case for case, names in owned.items() if names != modalities]
        assert all(set(owned[case]) < set(modalities) and len(owned[case]) == len(modalities) - 1 for case in short)
        trained = sum(part == "train" for part in parts(site).values())
        assert sum(parts(site)[case] == "train" for case in short) == (round(trained / 2) if site in lacking else 0)
        # None is missing everywhere.
        assert set().union(*owned.values()) == set(modalities)


def head():
    """A line of tissue along x in a block of white matter: fluid, oedema, rim (2), necrosis (3), rim (2), oedema."""
    tissue = np.full((13, 9, 9), WHITE, dtype=np.uint8)
    tissue[2:11, 1:8, 1:8] = ED
    tissue[3:10, 2:7, 2:7] = ET
    tissue[5:8, 4:5, 4:5] = NCR
    tissue[1] = CSF
    tissue[12] = OUTSIDE
    return tissue


@pytest.mark.parametrize(
    ("oedema", "rim", "line"),
    [
        (0, 0, [WHITE, CSF, ED, ET, ET, NCR, NCR, NCR, ET, ET, ED, WHITE, OUTSIDE]),
        # Not into fluid, and not out of the brain.
        (1, 0, [WHITE, CSF, ED, ET, ET, NCR, NCR, NCR, ET, ET, ED, ED, OUTSIDE]),
        (-1, 0, [WHITE, CSF, WHITE, ET, ET, NCR, NCR, NCR, ET, ET, WHITE, WHITE, OUTSIDE]),
        (0, 1, [WHITE, CSF, ED, ET, ET, ET, ET, ET, ET, ET, ED, WHITE, OUTSIDE]),
        (0, -1, [WHITE, CSF, ED, ET, NCR, NCR, NCR, NCR, NCR, ET, ED, WHITE, OUTSIDE]),
    ],
)
def test_annotators(oedema, rim, line):
    tissue = head()
    drawn = annotated(tissue, oedema, rim)
    assert drawn[:, 4, 4].tolist() == line
    assert (tissue == head()).all()


def test_a_thin_rim_stays_and_none_is_made():
    tissue = head()
    tissue[4:9, 3:6, 3:6] = NCR
    assert (annotated(tissue, 0, -1) == tissue).all()
    tissue[tissue == ET] = NCR
    assert all((annotated(tissue, 0, rim) == tissue).all() for rim in (-1, 1))


def test_thick_slices():
    """Along their axis neighbours are alike; without them, noise makes neighbours differ."""
    modalities = phantom_sites()["fusion"]
    device = Scanner(0.5, 0.2, dict.fromkeys(modalities, 1.0), dict.fromkeys(modalities, 1000.0), 0.0, {"T1": 1})
    brain = np.zeros((48, 48, 48), dtype=np.uint8)
    brain[6:42, 6:42, 6:42] = WHITE
    images = scan(np.random.default_rng(0), brain, device)
    jumps = {
        name: [float(np.abs(np.diff(image[6:42, 6:42, 6:42].astype(float), axis=axis)).mean()) for axis in range(3)]
        for name, image in images.items()
    }
    assert jumps["T1"][1] < 0.5 * jumps["T1"][0] and jumps["T1"][1] < 0.3 * jumps["T2"][1]
    assert all(((image > 0) == (brain > 0)).all() for image in images.values())
    # The slices next to the outside are as bright as those inside.
    assert images["T1"][:, 6:9].max(axis=(1, 2)).max() > 500 and images["T1"][6:42, 6, 6:42].mean() == pytest.approx(
        images["T1"][6:42, 24, 6:42].mean(), rel=0.05
    )


def test_a_case_is_drawn_as_its_site_draws():
    site = next(site for site in SITES if hospitals.hospitals(SEED)[site].oedema == 1)
    case = case_names(site)[0]
    images, label = hospital_case(site, case, SEED)
    again = hospital_case(site, case, SEED)
    assert (label == again[1]).all() and all((images[name] == again[0][name]).all() for name in images)
    assert list(images) == ["FLAIR", "T1ce", "T1", "T2"] and set(np.unique(label)) <= {0, 1, 2, 4}
    assert (label[images["T1"] == 0] == 0).all() and (label == 2).any()


def test_a_site_is_opened_with_its_parts(tmp_path):
    site = next(site for site in SITES if hospitals.hospitals(SEED)[site].lacks_images)
    data = opened(tmp_path, site, {"train": 0.9, "validation": 0.1})
    counts = Counter(parts(site).values())
    assert data.counts() == dict(counts) and data.source == "phantom" and data.modalities == phantom_sites()[site]
    for part in ("train", "validation", "test"):
        assert {case.name for case in getattr(data, part)} == {name for name, of in parts(site).items() if of == part}
    assert {case.name: case.modalities for case in data.train} == {
        case.name: owned_modalities(site, case.name, SEED) for case in data.train
    }


def test_number_of_fusion_cases(tmp_path):
    chosen = {count: opened(tmp_path, "fusion", {"fusion_cases": count}) for count in (6, 12, None)}
    names = {count: [case.name for case in data.train] for count, data in chosen.items()}
    assert [len(of) for of in names.values()] == [6, 12, 48]
    assert set(names[6]) < set(names[12]) < set(names[None])
    assert chosen[6].test == chosen[None].test and len(chosen[6].test) == 32
    with pytest.raises(DataError, match="fusion_cases is 49, but the fusion site has 48"):
        opened(tmp_path, "fusion", {"fusion_cases": 49})


def test_settings():
    assert cohort_of(True) is MILD and cohort_of("hospitals") is HOSPITALS
    kept = make_settings("phantom", {"data": {"phantom": "hospitals"}}).model_dump(mode="json")
    assert kept["data"]["phantom"] == "hospitals" and make_settings("paper", kept).data.phantom == "hospitals"
    assert make_settings("phantom").data.phantom is True and make_settings("paper").data.phantom is False
    for data, said in (
        ({"phantom": "clinics"}, "data.phantom"),
        ({"fusion_cases": 6, "fusion_share": 0.5}, "fusion_cases and fusion_share both say"),
        ({"fusion_cases": 0}, "data.fusion_cases"),
    ):
        with pytest.raises(SettingsError, match=said):
            make_settings("phantom", {"data": data})


def test_the_cohorts_do_not_mix(tmp_path):
    tiny = replace(HOSPITALS, make=small)
    folder = ensure_site(tmp_path, "site-5", SEED, tiny)
    assert (folder / "fedmepd-data.json").is_file()
    with pytest.raises(DataError, match="site-5 is not the phantom of site-5 with seed 3"):
        ensure_site(tmp_path, "site-5", SEED)
    assert cohort_folder(tmp_path, HOSPITALS, 1) != cohort_folder(tmp_path, MILD, 1)
