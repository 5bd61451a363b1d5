from __future__ import annotations

import json

import pytest

from fedmepd.federation.timing import PHASES, SITES, RoundSeconds, Timing, figures_of
from tests.federation.drive import Clock


def report(training: float, evaluation: float, saving: float) -> dict[str, float]:
    return {
        "train_seconds": training,
        "validation_seconds": evaluation,
        "seconds": training + evaluation + saving,
    }


def phases(**seconds: float) -> dict[str, float]:
    assert seconds.keys() <= set(PHASES)
    return dict.fromkeys(PHASES, 0.0) | seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timing(clock: Clock) -> Timing:
    """After a start-up of 10 s and a round 0 of 23 s."""
    timing = Timing(clock)
    clock.wait(10)
    with timing.during("fusion_training"):
        clock.wait(20)
    timing.enter("aggregation")
    clock.wait(1)
    timing.enter("saving")
    timing.name_round(0)
    clock.wait(2)
    timing.end_round()
    return timing


def play(timing: Timing, clock: Clock, number: int) -> RoundSeconds:
    """A round of 41.5 s; site ``slow`` has its task 1 s after the round began, and decides."""
    clock.wait(0.5)
    timing.enter(SITES)
    clock.wait(0.5)
    timing.handed_out("quick")
    clock.wait(0.5)
    timing.handed_out("slow")
    # Both have two seconds on the way: quick 9.5 s from its task to its update, 7.5 s of them its own.
    clock.wait(9)
    timing.took_in("quick", clock(), report(training=6, evaluation=1, saving=0.5))
    clock.wait(11)
    came = clock()
    clock.wait(0.5)
    timing.took_in("slow", came, report(training=15, evaluation=2, saving=1))
    clock.wait(0.75)
    timing.enter("aggregation")
    clock.wait(1.25)
    with timing.during("fusion_training"):
        clock.wait(12)
    clock.wait(0.5)
    with timing.during("fusion_evaluation"):
        clock.wait(3)
    timing.enter("saving")
    timing.name_round(number)
    clock.wait(2)
    return timing.end_round()


def test_round_before_the_sites(timing: Timing) -> None:
    (record,) = timing.rounds
    assert (record.round, record.last_site, record.mean_site) == (0, None, {})
    assert record.phases == phases(start_up=10, fusion_training=20, aggregation=1, saving=2)


def test_round_is_split_on_the_path_of_the_site_that_came_last(timing: Timing, clock: Clock) -> None:
    started = clock()
    record = play(timing, clock, 1)
    assert record.phases == phases(
        site_training=15,
        site_evaluation=2,
        # 20 s from slow's task to its update, less 18 s of work.
        transfer=2,
        # A second until slow's task was handed out, and 0.75 s after its update was in.
        waiting=1.75,
        # Taking in slow's update, and what follows.
        aggregation=0.5 + 1.25 + 0.5,
        fusion_training=12,
        fusion_evaluation=3,
        # The state of slow, and the server's.
        saving=1 + 2,
        other=0.5,
    )
    assert record.last_site == "slow"
    # Quick waited 11 s for slow.
    assert record.mean_site == {"training": 10.5, "evaluation": 1.5, "transfer": 2, "waiting": 5.5}
    assert record.total == clock() - started == 41.5
    assert record.overhead() == 41.5 - (15 + 2 + 12 + 3)


def test_everything_adds_up_to_the_wall_clock(timing: Timing, clock: Clock) -> None:
    play(timing, clock, 1)
    play(timing, clock, 2)
    clock.wait(7)
    timing.end_testing()
    assert timing.testing == 7
    assert timing.total() == clock() - 1000 == 33 + 41.5 + 41.5 + 7


def test_nobody_answers(timing: Timing, clock: Clock) -> None:
    timing.enter(SITES)
    timing.handed_out("silent")
    clock.wait(30)
    timing.enter("aggregation")
    timing.name_round(1)
    record = timing.end_round()
    assert record.phases == phases(waiting=30) and record.last_site is None and record.mean_site == {}


def test_one_site_does_not_answer(timing: Timing, clock: Clock) -> None:
    timing.enter(SITES)
    timing.handed_out("silent")
    timing.handed_out("there")
    clock.wait(5)
    timing.took_in("there", clock(), report(training=4, evaluation=0, saving=0))
    clock.wait(25)
    timing.enter("aggregation")
    timing.name_round(1)
    record = timing.end_round()
    assert record.phases == phases(site_training=4, transfer=1, waiting=25)
    assert record.mean_site["waiting"] == 0


def test_site_cannot_claim_more_time_than_it_had(timing: Timing, clock: Clock) -> None:
    timing.enter(SITES)
    timing.handed_out("boaster")
    clock.wait(10)
    timing.took_in("boaster", clock(), report(training=600, evaluation=300, saving=100))
    timing.enter("aggregation")
    timing.name_round(1)
    record = timing.end_round()
    assert record.phases == pytest.approx(phases(site_training=6, site_evaluation=3, saving=1))


def test_a_site_that_has_its_task_again_after_its_update_came(timing: Timing, clock: Clock) -> None:
    """No phase takes less than no time."""
    timing.enter(SITES)
    timing.handed_out("back")
    clock.wait(8)
    came = clock()
    clock.wait(1)
    timing.handed_out("back")
    clock.wait(1)
    timing.took_in("back", came, report(training=6, evaluation=1, saving=0.5))
    timing.enter("saving")
    timing.name_round(1)
    ended = timing.end_round()
    assert min(ended.phases.values()) == 0 and ended.total == 10


def test_round_in_its_state_is_kept_without_the_time_to_keep_it(timing: Timing, clock: Clock) -> None:
    clock.wait(3)
    timing.enter("saving")
    timing.name_round(1)
    kept = json.loads(json.dumps(timing.state()))
    clock.wait(2)
    timing.end_round()
    assert kept["rounds"][1]["phases"] == phases(other=3)
    assert timing.rounds[1].phases == phases(other=3, saving=2)


def test_resumed(timing: Timing, clock: Clock) -> None:
    timing.sites = {"quick": {"process": 3.0, "data": 1.0}, "slow": {"process": 4.0, "data": 2.0}}
    play(timing, clock, 1)
    kept = json.loads(json.dumps(timing.state()))
    later = Clock()
    again = Timing(later)
    again.sites = {"slow": {"process": 5.0, "data": 0.5}}
    later.wait(6)
    again.restore(kept)
    later.wait(1)
    record = play(again, later, 2)
    # The start-up of the new processes belongs to the first round after it, and so does what ends it.
    assert record.phases["start_up"] == 7.5 and record.phases["other"] == 0 and record.total == 41.5 + 7
    assert [record.round for record in again.rounds] == [0, 1, 2]
    assert again.rounds[:2] == timing.rounds
    assert again.total() == 33 + 41.5 + 48.5
    assert again.sites == {"quick": {"process": 3.0, "data": 1.0}, "slow": {"process": 5.0, "data": 0.5}}


def test_summary(timing: Timing, clock: Clock) -> None:
    timing.sites = {"slow": {"process": 4.00049, "data": 2.0}}
    play(timing, clock, 1)
    play(timing, clock, 2)
    clock.wait(9)
    timing.end_testing()
    summary = timing.summary()
    assert summary["seconds"] == {
        "start_up": 10,
        "site_training": 30,
        "site_evaluation": 4,
        "transfer": 4,
        "waiting": 3.5,
        "aggregation": 1 + 2 * 2.25,
        "fusion_training": 20 + 24,
        "fusion_evaluation": 6,
        "saving": 2 + 6,
        "other": 1,
        "testing": 9,
    }
    assert summary["shares"]["fusion_training"] == pytest.approx(44 / 125)
    assert sum(summary["shares"].values()) == pytest.approx(1)
    # Round 0 and the start-up are not in the mean round.
    assert summary["mean_round"] == {
        "site_training": 15,
        "site_evaluation": 2,
        "transfer": 2,
        "waiting": 1.75,
        "aggregation": 2.25,
        "fusion_training": 12,
        "fusion_evaluation": 3,
        "saving": 3,
        "other": 0.5,
    }
    assert summary["overhead"] == {"seconds": 9.5, "share_of_training": round(9.5 / (15 + 12), 4)}
    assert summary["start_up_of_sites"] == {"slow": {"process": 4.0, "data": 2.0}}
    first, second, third = summary["rounds"]
    assert (first["round"], second["round"], third["round"]) == (0, 1, 2)
    assert (first["total"], first["start_up"], first["last_site"]) == (33, 10, None)
    assert second["total"] == 41.5 == sum(second[phase] for phase in PHASES) and second["last_site"] == "slow"
    assert third["mean_site"]["waiting"] == 5.5
    json.dumps(summary, allow_nan=False)


def test_summary_before_the_first_round(clock: Clock) -> None:
    summary = Timing(clock).summary()
    assert summary["rounds"] == [] and summary["mean_round"] is None
    assert summary["overhead"] == {"seconds": None, "share_of_training": None}
    assert set(summary["shares"].values()) == {0.0}


def test_figures(timing: Timing, clock: Clock) -> None:
    figures = figures_of(play(timing, clock, 1))
    assert figures.keys() == {f"server/seconds/{name}" for name in (*PHASES, "total", "overhead")}
    assert figures["server/seconds/total"] == 41.5 and figures["server/seconds/overhead"] == 9.5
    assert figures["server/seconds/transfer"] == 2


def test_time_left() -> None:
    """Two rounds so far: 40 s of work each, once 10 s of start-up more, once 6 s of validation."""
    timing = Timing()
    assert timing.seconds_left(3, 1) is None
    first = phases(start_up=10, site_training=25, transfer=15)
    second = phases(site_training=25, waiting=15, site_evaluation=4, fusion_evaluation=2)
    timing.rounds = [RoundSeconds(0, phases(fusion_training=500)), RoundSeconds(1, first)]
    assert timing.seconds_left(3, 1) == 3 * 40
    timing.rounds.append(RoundSeconds(2, second))
    assert timing.seconds_left(5, 2) == 5 * 40 + 2 * 6
    assert timing.seconds_left(0, 0) == 0
