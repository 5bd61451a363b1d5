"""A site whose privacy budget is spent, on FLARE's side."""

from __future__ import annotations

import pytest

from fedmepd.errors import FusionAway, UpdateRefused
from fedmepd.federation.exchange import Payload
from fedmepd.flare import translation
from fedmepd.flare.egress import items_of
from fedmepd.privacy.participant import BudgetSpent
from tests.flare.test_controller import SITES, Job, good_site
from tests.flare.test_executor import context, execute, make  # noqa: F401 (a fixture)

SPENT = {
    "unit": "patient",
    "epsilon": 7.9,
    "delta": 1e-5,
    "budget": 8.0,
    "noise": 1.5,
    "vector_noise": None,
    "clip": 1.0,
    "rate": 0.25,
}


def spent() -> BudgetSpent:
    return BudgetSpent("site-1: the budget is spent", "the budget is spent", SPENT)


def test_the_answer_says_what_is_spent_and_the_list_of_what_has_left_names_it() -> None:
    reply = translation.failure_reply(spent())
    assert translation.failure_of(reply) == "the budget is spent"
    assert translation.spent_of("site-1", reply) == SPENT
    assert translation.spent_of("site-1", translation.failure_reply(MemoryError())) is None
    assert {(item.kind, item.name) for item in items_of("train", reply, {})} >= {("counts", translation.SPENT)}


@pytest.mark.parametrize("said", [{}, SPENT | {"epsilon": float("inf")}, SPENT | {"name": "x"}, "all", 1])
def test_an_answer_that_makes_no_sense_ends_nothing(said) -> None:
    reply = translation.failure_reply(spent())
    reply.set_header(translation.SPENT, said)
    with pytest.raises(UpdateRefused):
        translation.spent_of("site-1", reply)


def fusion_is_spent():
    error = FusionAway("spent", "spent")
    error.__cause__ = spent()
    return error


@pytest.mark.parametrize("error", [spent(), fusion_is_spent()])
def test_the_site_is_opened_once(context, error) -> None:  # noqa: F811
    executor = make(fails=lambda: error)
    for number in (3, 4):
        reply = execute(executor, context, "train", payload=Payload(number))
        assert translation.failure_of(reply)
    assert len(executor.made) == 1


@pytest.fixture
def job(tmp_path, caplog):
    return Job(tmp_path, caplog)


def answers(*ended):
    def answer(site, name, message):
        if name == "train" and site in ended:
            return translation.failure_reply(spent())
        return good_site(site, name, message)

    return answer


def test_it_is_asked_for_no_more_rounds_but_for_the_test(job) -> None:
    job.answer = answers("site-2")
    job.run(rounds=3)
    assert not job.engine.panics
    assert job.server.ended == {"site-2": SPENT}
    assert sorted(job.sites_of("train")) == sorted(["site-2", *(("site-1", "site-10") * 3)])
    assert sorted(job.server.tests) == sorted(SITES)
    assert "round 1: site-2 ends its training: the budget is spent" in job.log


def test_when_all_have_ended_the_job_goes_on_with_its_test(job) -> None:
    job.answer = answers(*SITES)
    job.run(rounds=3)
    assert not job.engine.panics
    assert job.server.calls == ["restore", "start", "finish"]
    assert sorted(job.sites_of("train")) == sorted(SITES) == sorted(job.server.tests)


def test_an_impostor_ends_nobodys_training(job) -> None:
    job.answer = answers("site-2")
    job.liar = lambda site, name: "site-1" if (site, name) == ("site-2", "train") else site
    job.run(rounds=1)
    assert job.server.ended == {}
