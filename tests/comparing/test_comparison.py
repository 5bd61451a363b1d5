"""Whole comparisons of hand-made runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from fedmepd.comparing.comparison import compare
from fedmepd.comparing.scores import FUSION, MEAN, WORST
from fedmepd.comparing.sections import sections
from fedmepd.comparing.text import console_text
from fedmepd.errors import FedMEPDError
from tests.comparing import runs, slow


def write(
    folder: Path, methods: dict[str, Callable[[int], np.ndarray]], seeds: int, curves: bool = False, **changes
) -> Path:
    """Runs whose scores are a function of the seed."""
    for name, of_seed in methods.items():
        for seed in range(seeds):
            history = runs.history([0.3, 0.5]) if curves else None
            runs.write(folder, runs.run(name, seed, of_seed(seed), **changes), history)
    return folder


def better(amount: float) -> Callable[[int], np.ndarray]:
    return lambda seed: runs.scores(seed) + amount


def columns(comparison: dict, rival: str) -> dict:
    return comparison["differences"][rival]["columns"]


PATIENTS = {"source": "folder", "cohort": "the same"}


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("changes", [{}, PATIENTS, {"source": "folder"}], ids=["phantoms", "fixed", "repeated"])
def test_two_equal_methods(tmp_path: Path, seeds: int, changes: dict) -> None:
    found = compare([write(tmp_path, {"fedmepd": better(0), "local": better(0)}, seeds, **changes)], draws=500)
    for column in (MEAN, WORST, FUSION, "site-1"):
        of = columns(found, "local")[column]
        assert of["mean"] == of["low"] == of["high"] == 0
    for column in (MEAN, FUSION):
        # Of repeated splits t is not defined without any spread.
        assert columns(found, "local")[column]["p"] in (1, None)
    assert found["differences"]["local"]["sites"] == {"won": [], "level": found["sites"], "lost": []}
    assert found["below_local"]["fedmepd"] == {"below": [], "shown": []}
    assert {of["place"] for of in found["ranking"].values()} == {1} == {of["last"] for of in found["ranking"].values()}
    assert "not shown to differ: difference +0.000 [+0.000, +0.000]" in found["sentences"][0]


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.25), (5, 0.0625)])
def test_one_better_by_a_constant(tmp_path: Path, seeds: int, p: float) -> None:
    found = compare([write(tmp_path, {"fedmepd": better(0.125), "local": better(0)}, seeds)], draws=500)
    for column in (MEAN, WORST, FUSION):
        of = columns(found, "local")[column]
        assert (of["mean"], of["low"], of["high"]) == pytest.approx((0.125, 0.125, 0.125))
        assert (of["p"], of["p_holm"]) == (p, p)
    assert found["differences"]["local"]["sites"]["won"] == found["sites"]
    assert found["sentences"] == [
        "fedmepd against local: at the sites better by 0.125 [0.125, 0.125]; at the fusion site better by 0.125 "
        f"[0.125, 0.125] ({seeds} seeds)."
    ]
    assert [found["ranking"][name]["rank"] for name in ("fedmepd", "local")] == [1, 2]
    turned = compare([tmp_path], "local", draws=500)
    assert turned["sentences"][0].startswith("local against fedmepd: at the sites worse by 0.125 [0.125, 0.125];")
    assert turned["differences"]["fedmepd"]["sites"]["lost"] == found["sites"]


def test_five_independent_seeds_by_the_slow_formulas(tmp_path: Path) -> None:
    noise = {seed: 0.02 * np.random.default_rng(seed + 50).standard_normal((3, 6, 3)) for seed in range(5)}
    methods = {"fedmepd": lambda seed: runs.scores(seed) + 0.02 + noise[seed], "local": better(0)}
    found = compare([write(tmp_path, methods, 5)], draws=500)
    differences = {"mean": [], "worst": [], "site-2": []}
    own = []
    for seed in range(5):
        sites = {name: [float(site.mean()) for site in methods[name](seed)] for name in methods}
        differences["mean"].append(fmean(sites["fedmepd"]) - fmean(sites["local"]))
        differences["worst"].append(min(sites["fedmepd"]) - min(sites["local"]))
        differences["site-2"].append(sites["fedmepd"][1] - sites["local"][1])
        own.append(fmean(sites["fedmepd"]))
    for column, key in ((MEAN, "mean"), (WORST, "worst"), ("site-2", "site-2")):
        of = columns(found, "local")[column]
        assert of["mean"] == pytest.approx(fmean(differences[key])) and of["sd"] == pytest.approx(
            stdev(differences[key])
        )
        assert (of["low"], of["high"]) == pytest.approx(slow.t_interval(differences[key]), abs=1e-5)
    assert columns(found, "local")[MEAN]["p"] == pytest.approx(slow.sign_flips(differences["mean"]))
    score = found["scores"]["fedmepd"][MEAN]
    assert (score["mean"], score["sd"]) == pytest.approx((fmean(own), stdev(own)))
    assert (score["low"], score["high"]) == pytest.approx(slow.t_interval(own), abs=1e-5)


def test_repeated_splits_are_corrected(tmp_path: Path) -> None:
    """Six test cases everywhere, for 8, 16 and 8 training cases at the sites and 24 at the fusion site."""
    noise = {seed: 0.02 * np.random.default_rng(seed + 50).standard_normal((3, 6, 3)) for seed in range(3)}
    for seed in range(3):
        for name, scores in (("fedmepd", runs.scores(seed) + noise[seed]), ("local", runs.scores(seed))):
            run = runs.run(name, seed, scores, source="folder")
            run["sites"][1]["cases"]["train"], run["server"]["cases"]["train"] = 16, 24
            runs.write(tmp_path, run)
    found = compare([tmp_path], draws=500)
    for column, of_seed, overlap in (
        (MEAN, lambda seed: noise[seed].mean(), 18 / 32),
        ("site-1", lambda seed: noise[seed][0].mean(), 6 / 8),
        ("site-2", lambda seed: noise[seed][1].mean(), 6 / 16),
        (FUSION, lambda seed: noise[seed][0].mean(), 6 / 24),
    ):
        of = columns(found, "local")[column]
        expected = slow.t_interval([of_seed(seed) for seed in range(3)], overlap)
        assert (of["low"], of["high"]) == pytest.approx(expected, abs=1e-5)


def test_a_fixed_split(tmp_path: Path) -> None:
    """Wilcoxon's test over the cases of all sites, each the mean over the seeds; none for the worst site."""
    random = np.random.default_rng(3)
    noise = {seed: 0.05 * random.standard_normal((2, 5, 3)) for seed in range(3)}
    cases = runs.scores(0, sites=2, count=5)
    methods = {"fedmepd": lambda seed: cases + noise[seed] + 0.02, "local": lambda seed: cases}
    found = compare([write(tmp_path, methods, 3, **PATIENTS)], draws=2000)
    of_cases = np.mean([of_seed.mean(axis=2) + 0.02 for of_seed in noise.values()], axis=0)
    assert columns(found, "local")[MEAN]["p"] == pytest.approx(slow.wilcoxon(of_cases.ravel().tolist()))
    assert columns(found, "local")[FUSION]["p"] == pytest.approx(slow.wilcoxon(of_cases[0].tolist()))
    assert columns(found, "local")[WORST]["p"] is None
    of = columns(found, "local")[MEAN]
    assert of["low"] < of["mean"] < of["high"] and of["mean"] == pytest.approx(of_cases.mean())


def test_one_site_only(tmp_path: Path) -> None:
    of = {
        name: (lambda seed, each=each: each(seed)[:1])
        for name, each in (("fedmepd", better(0.1)), ("local", better(0)))
    }
    found = compare([write(tmp_path, of, 3)], draws=500)
    assert found["sites"] == ["site-1"]
    for name in ("fedmepd", "local"):
        scores = found["scores"][name]
        assert scores[MEAN] == scores[WORST] == scores["site-1"]


def test_holm_is_over_the_rivals(tmp_path: Path) -> None:
    """Four seeds in favour of the reference have p = 2/16; of three seeds against one it is more."""
    methods = {
        "fedmepd": better(0.2),
        "local": better(0),
        "fedavg": better(0.1),
        "fusion_only": lambda seed: runs.scores(seed) + (0.25 if seed == 0 else 0.1),
    }
    found = compare([write(tmp_path, methods, 4)], draws=500)
    p = {name: columns(found, name)[MEAN]["p"] for name in ("local", "fedavg", "fusion_only")}
    assert p["local"] == p["fedavg"] == 0.125 < p["fusion_only"]
    corrected = slow.holm(list(p.values()))
    assert [columns(found, name)[MEAN]["p_holm"] for name in p] == pytest.approx(corrected)


def test_sites_below_local(tmp_path: Path) -> None:
    """site-2 loses by joining, site-10 perhaps."""

    def joined(seed: int) -> np.ndarray:
        scores = runs.scores(seed)
        scores[0] += 0.1
        scores[1] -= 0.1
        scores[2] += 0.1 if seed < 2 else -0.1
        return scores

    found = compare([write(tmp_path, {"fedmepd": joined, "local": better(0)}, 5)], draws=500)
    assert found["below_local"] == {"fedmepd": {"below": ["site-2", "site-10"], "shown": ["site-2"]}}
    # What is lost has an interval below 0, not only a mean.
    assert columns(found, "local")["site-10"]["mean"] < 0
    sites = found["differences"]["local"]["sites"]
    assert sites == {"won": ["site-1"], "level": ["site-10"], "lost": ["site-2"]}
    without = compare([write(tmp_path / "without", {"fedmepd": joined, "fedavg": better(0)}, 5)], draws=500)
    assert without["below_local"] is None


def test_the_ranking_is_over_the_mean_of_the_sites(tmp_path: Path) -> None:
    """Ranks by site: fedavg 1, 3, 3; local 2, 2, 2; fedmepd 3, 1, 1. In every draw the means have the same order."""
    offsets = {"fedavg": (0.2, 0.0, 0.0), "local": (0.1, 0.1, 0.1), "fedmepd": (0.0, 0.2, 0.2)}
    methods = {
        name: (lambda seed, of=of: runs.scores(seed) + np.array(of)[:, None, None]) for name, of in offsets.items()
    }
    ranking = compare([write(tmp_path, methods, 2)], draws=100)["ranking"]
    assert [ranking[name]["rank"] for name in offsets] == pytest.approx([7 / 3, 2, 5 / 3])
    for name, place in (("fedmepd", 1), ("local", 2), ("fedavg", 3)):
        assert (ranking[name]["place"], ranking[name]["first"], ranking[name]["last"]) == (place, place, place)


def test_distances_and_penalties(tmp_path: Path) -> None:
    """One of six test cases of site-1 lacks a region in the prediction alone, so one in eighteen of all sites'."""

    def with_penalty(content: dict) -> dict:
        case = content["sites"][0]["test_cases"][2]
        case["hd95_mm"]["ET"], case["empty"]["ET"] = runs.PENALTY, "prediction"
        # Empty in both is no penalty.
        content["sites"][0]["test_cases"][3]["empty"]["TC"] = "both"
        distances = [case["hd95_mm"]["ET"] for case in content["sites"][0]["test_cases"]]
        content["sites"][0]["test"]["hd95_mm"]["ET"] = fmean(distances)
        return content

    runs.write(tmp_path, with_penalty(runs.run("fedmepd", 0, runs.scores(0))))
    of = compare([tmp_path], draws=100)["regions_scores"]["fedmepd"]
    assert of[MEAN]["ET"]["penalised"] == pytest.approx(1 / 18) and of[MEAN]["TC"]["penalised"] == 0
    scores = runs.scores(0)
    distances = 100 * (1 - scores[..., 2])
    distances[0, 2] = runs.PENALTY
    assert of[MEAN]["ET"]["hd95_mm"] == pytest.approx(distances.mean())
    assert of[FUSION]["WT"]["dice"] == pytest.approx(scores[0, :, 0].mean())


def test_without_scores_of_cases(tmp_path: Path) -> None:
    def closed(folder: Path, seeds: int, **changes) -> dict:
        for name, amount in (("fedmepd", 0.1), ("local", 0.0)):
            for seed in range(seeds):
                noise = 0.01 * np.random.default_rng([seed, len(name)]).standard_normal((3, 6, 3))
                run = runs.run(name, seed, runs.scores(seed) + amount + noise, **changes)
                # One site is enough.
                run["sites"][1] |= {"test_cases": None, "test_fingerprint": None}
                runs.write(folder, run)
        return compare([folder], draws=100)

    found = closed(tmp_path / "seeds", 3)
    assert any(note.startswith("site-2: no scores of single test cases") for note in found["notes"])
    assert found["ranking"] is None and found["design"]["interval"] == "t"
    assert "better by 0.1" in found["sentences"][0]
    single = closed(tmp_path / "single", 1)
    assert single["sentences"][0].count("no interval") == 2
    assert columns(single, "local")[MEAN]["low"] is None and columns(single, "local")[MEAN]["p"] is None


def test_results_of_an_older_version(tmp_path: Path) -> None:
    """They say nothing of cases, work and machine; that the cases are phantoms they do not say either."""
    for name, amount in (("fedmepd", 0.1), ("local", 0.0)):
        for seed in range(3):
            run = runs.run(name, seed, runs.scores(seed) + amount * (1 + 0.1 * seed))
            for key in ("source", "trials", "hardware", "precision", "evaluation"):
                del run[key]
            for entry in (run["server"], *run["sites"]):
                for key in ("test_cases", "test_fingerprint", "work"):
                    del entry[key]
            runs.write(tmp_path, run)
    found = compare([tmp_path], draws=10)
    assert found["design"]["interval"] == "corrected t" and found["budget"]["local"]["steps"] is None
    assert "at the sites better by 0.110 [" in found["sentences"][0]
    assert "cannot be checked" in console_text(found)


def test_an_untested_site_is_left_out_everywhere(tmp_path: Path) -> None:
    write(tmp_path, {"fedmepd": better(0.1), "local": better(0)}, 3)
    path = tmp_path / "local" / "seed-1" / "results.json"
    run = json.loads(path.read_text())
    run["sites"][1] |= {"test": None, "test_cases": None, "test_fingerprint": None, "untested": "away"}
    run["server"] |= {"test": None, "test_cases": None, "test_fingerprint": None}
    path.write_text(json.dumps(run))
    found = compare([tmp_path], draws=100)
    assert found["sites"] == ["site-1", "site-10"] and FUSION not in found["scores"]["fedmepd"]
    assert "site-2, fusion site: not tested in every run, left out everywhere" in found["notes"]
    assert found["sentences"] == ["fedmepd against local: at the sites better by 0.100 [0.100, 0.100] (3 seeds)."]


def test_a_site_whose_labels_do_not_tell_all_regions_is_left_out_everywhere(tmp_path: Path) -> None:
    write(tmp_path, {"fedmepd": better(0.1), "local": better(0)}, 3)
    for path in tmp_path.rglob("results.json"):
        run = json.loads(path.read_text())
        entry = run["sites"][1]
        for scores in (entry["test"], *entry["test_cases"]):
            for key in ("dice", "hd95_mm", "empty"):
                scores[key] = {region: value for region, value in scores[key].items() if region == "WT"}
        entry["test"]["mdsc"] = entry["test"]["dice"]["WT"]
        path.write_text(json.dumps(run))
    found = compare([tmp_path], draws=100)
    assert found["sites"] == ["site-1", "site-10"] and found["regions"] == ["WT", "TC", "ET"]
    assert "site-2: labels tell other regions than WT, TC, ET, left out everywhere" in found["notes"]


def test_fewer_trials_of_the_rival_forbid_a_claim(tmp_path: Path) -> None:
    write(tmp_path, {"fedmepd": better(0.1)}, 3, trials=4)
    write(tmp_path, {"local": better(0)}, 3)
    [said] = compare([tmp_path], draws=100)["sentences"]
    assert "better" not in said and said.count("fedmepd was tried in 4 configurations, local in 1") == 2


def test_the_reference(tmp_path: Path) -> None:
    write(tmp_path, {"fedavg": better(0.1), "local": better(0)}, 1)
    with pytest.raises(FedMEPDError, match="no method is called fedmepd. Name .* one of: fedavg; local$"):
        compare([tmp_path], draws=10)
    assert compare([tmp_path], "fedavg", draws=10)["against"] == "fedavg"
    with pytest.raises(FedMEPDError, match="--against fedprox: no such method here"):
        compare([tmp_path], "fedprox", draws=10)


def test_a_single_method_is_shown(tmp_path: Path) -> None:
    found = compare([write(tmp_path, {"fedavg": better(0)}, 2)], draws=10)
    assert found["against"] == "fedavg" and found["sentences"] == [] and found["differences"] == {}
    assert {section.title for section in sections(found)} >= {"What is compared", "Scores", "Ranking"}


def test_one_method_that_is_left_is_said_first(tmp_path: Path) -> None:
    """With every seed only fedmepd was run, so that nothing stands beside it."""
    write(tmp_path, {"fedmepd": better(0)}, 3)
    write(tmp_path, {"fedavg": better(0)}, 1)
    write(tmp_path, {"fedbn": better(0)}, 2)
    write(tmp_path, {"local": better(0)}, 1, status="running", round=2)
    alone = compare([tmp_path], draws=10, complete=True)
    assert alone["left_out"] == {"fedavg": [1, 2], "fedbn": [2], "local": [0, 1, 2]}
    assert console_text(alone).splitlines()[2:9] == [
        "Nothing to compare",
        "------------------",
        "- fedmepd is the only method whose runs count",
        "- fedavg is left out: no finished run with seed 1, 2",
        "- fedbn is left out: no finished run with seed 2",
        "- local is left out: no finished run with seed 0, 1, 2",
        "- without --complete, the seeds that all methods have are compared: 0",
    ]
    # Two methods are a comparison, and the one that goes on is a note of it.
    both = console_text(compare([tmp_path], draws=10))
    assert "Nothing to compare" not in both and "- local, seed 0: not finished (round 2 of 4), not used" in both


def test_a_method_by_itself_is_no_comparison(tmp_path: Path) -> None:
    """No seed is common to all, so leaving out --complete would not help; and without others nothing is left out."""
    write(tmp_path / "one", {"fedmepd": better(0)}, 2)
    assert console_text(compare([tmp_path / "one"], draws=10)).splitlines()[2:5] == [
        "Nothing to compare",
        "------------------",
        "- fedmepd is the only method whose runs count",
    ]
    for name, seed in (("fedavg", 0), ("fedbn", 1)):
        runs.write(tmp_path / "one", runs.run(name, seed, runs.scores(seed)))
    text = console_text(compare([tmp_path / "one"], draws=10, complete=True))
    assert "- fedbn is left out: no finished run with seed 0\n\n" in text and "--complete" not in text


def test_budget_and_curves(tmp_path: Path) -> None:
    """Three sites and the fusion site with 100 steps, 3 MB up and 1 MB down each."""
    found = compare([write(tmp_path, {"fedmepd": better(0), "local": better(0)}, 2, curves=True)], draws=10)
    of = found["budget"]["fedmepd"]
    assert (of["steps"], of["site_steps"], of["fusion_steps"], of["site_passes"]) == (400, 100, 100, 20)
    assert (of["bytes_up"], of["bytes_down"], of["peak_mib"], of["networks"]) == (12e6, 4e6, 500, 1)
    assert of["shared"].startswith("encoders")
    curve = found["curves"]["fedmepd"]
    assert curve["spent"]["steps"] == [50, 90] and curve["mean"] == pytest.approx([0.3, 0.5])
    assert curve["sd"] == pytest.approx([0, 0])
    # Nothing for 50 of 90 steps, then 0.3.
    assert curve["area"]["steps"] == pytest.approx({"mean": 0.3 * 40 / 90, "sd": 0})
    assert found["chosen_rounds"]["local"]["1"] == dict.fromkeys(("server", "site-1", "site-2", "site-10"), 2)


def test_no_area_where_the_budget_ends_before_the_first_validation(tmp_path: Path) -> None:
    """fedmepd's only validation comes after 20 of 20 steps, of the others after 50; local sends nothing."""
    for name, changes in (("fedmepd", {"steps": 4}), ("fedavg", {}), ("local", {"bytes_each": 0})):
        runs.write(tmp_path, runs.run(name, 0, runs.scores(0)), runs.history([0.3], **changes))
    [section] = [one for one in sections(compare([tmp_path], draws=10)) if one.title == "Convergence"]
    assert section.rows == [(name, "-", "-") for name in ("fedavg", "fedmepd", "local")]
    late = "the budget is spent before, or at, its first validation"
    assert section.notes[1:] == [
        f"no score over steps: {late} (fedavg, fedmepd, local)",
        f"no score over bytes: {late} (fedavg, fedmepd)",
        "no score over bytes: it sends nothing (local)",
    ]


def test_what_is_found_is_plain_and_repeatable(tmp_path: Path) -> None:
    write(tmp_path, {"fedmepd": better(0.1), "local": better(0)}, 3)
    first = json.dumps(compare([tmp_path], draws=200), allow_nan=False)
    assert json.dumps(compare([tmp_path], draws=200), allow_nan=False) == first
    assert str(tmp_path) not in first


@pytest.mark.slow
def test_a_large_comparison_takes_seconds(tmp_path: Path) -> None:
    """15 methods, 5 seeds, 9 owners, 20 cases, 10,000 draws."""
    names = [f"method-{number:02}" for number in range(15)]
    random = np.random.default_rng(0)
    for name in names:
        for seed in range(5):
            scores = np.clip(runs.scores(seed, count=20) + 0.03 * random.standard_normal((3, 20, 3)), 0, 1)
            run = runs.run("fedmepd", seed, scores, cohort=f"{seed}") | {"method": name}
            more = [runs.entry(f"site-{number}", ("T2",), scores[number % 3], str(seed)) for number in range(11, 16)]
            runs.write(tmp_path, run | {"sites": [*run["sites"], *more]})
    # Of the processor: others may use it too.
    began = time.process_time()
    found = compare([tmp_path], names[0])
    assert time.process_time() - began < 10
    assert len(found["differences"]) == 14 and len(found["sites"]) == 8
