"""A server that asks for the same round again and again: after a restart that is needed, without end it is not."""

from __future__ import annotations

import pytest

from fedmepd.errors import CheckpointError, SettingsError
from fedmepd.federation.asked_tasks import FILE_NAME, AskedTasks
from fedmepd.federation.exchange import FusionTask, Payload
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.site import FederationSite
from fedmepd.site_limits import Limits
from tests.federation.drive import CPU
from tests.tiny import never, settings

NAME = "site-1"


def test_rounds_that_go_on_are_never_too_many(tmp_path) -> None:
    asked = AskedTasks(tmp_path, Limits(repeats=0))
    for round_number in range(1, 200):
        asked.note("train", round_number)
    with pytest.raises(SettingsError, match="limits.repeats is 0 at this site"):
        asked.note("train", 199)


def test_repeated_rounds_are_counted_over_restarts_and_by_kind(tmp_path) -> None:
    for round_number in (1, 1, 2, 1):
        AskedTasks(tmp_path, Limits(repeats=2)).note("train", round_number)
    with pytest.raises(SettingsError) as refused:
        AskedTasks(tmp_path, Limits(repeats=2)).note("train", 2)
    told = "the server has asked for train 3 times more than the run has rounds of it, limits.repeats is 2 at this site"
    assert refused.value.public == told
    # What was refused is no further repetition; the next round is welcome, and so is another kind of task.
    AskedTasks(tmp_path, Limits(repeats=2)).note("train", 3)
    AskedTasks(tmp_path, Limits(repeats=2)).note("test", 2)
    AskedTasks(tmp_path, Limits(repeats=3)).note("train", 3)


def test_a_damaged_count_is_refused(tmp_path) -> None:
    (tmp_path / FILE_NAME).write_text('{"kinds": {"train": {"newest": -1}}}')
    with pytest.raises(CheckpointError, match="asked.json.*newest"):
        AskedTasks(tmp_path, Limits()).note("train", 1)


@pytest.mark.parametrize("what", ["folder", "link"])
def test_something_else_in_the_place_of_the_count_is_no_fresh_count(what: str, tmp_path) -> None:
    """As a link to a disk that has been moved."""
    if what == "folder":
        (tmp_path / FILE_NAME).mkdir()
    else:
        (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere" / FILE_NAME)
    with pytest.raises(CheckpointError, match="asked.json is a (folder|link that leads nowhere)"):
        AskedTasks(tmp_path, Limits()).note("train", 1)


def test_a_site_trains_a_round_again_after_a_restart_of_the_server_but_not_without_end(tiny, tmp_path) -> None:
    of = settings("local", rounds=3)
    limits = Limits(repeats=1, epochs=100)

    def site() -> FederationSite:
        return FederationSite(NAME, of, tiny.data(NAME), tmp_path, CPU, limits=limits, cross_site="share")

    site().train(Payload(1), never)
    site().train(Payload(1), never)
    with pytest.raises(SettingsError, match="asked for train"):
        site().train(Payload(1), never)
    site().train(Payload(2), never)
    for _ in range(2):
        site().test(Payload(2), never)
        copy = site().give_model()
        site().test_model(copy, never)
    for task, work in (
        ("test", lambda: site().test(Payload(2), never)),
        ("give_model", lambda: site().give_model()),
        ("test_model", lambda: site().test_model(copy, never)),
    ):
        with pytest.raises(SettingsError, match=f"asked for {task}"):
            work()


def test_a_fusion_site_at_a_hospital_is_asked_again_but_not_without_end(tiny, tmp_path) -> None:
    of = settings("fedmepd")
    site = FusionSite(of, tiny.data("fusion", of), tmp_path, CPU, limits=Limits(repeats=1))
    desk = FusionDesk(site, half_precision=False)
    site.bring_to_before(0)
    weights = {key: value for key, value in site.weights().items() if not key.startswith("auxiliary")}

    def validate():
        return desk.do(FusionTask("validate", 0, list(weights), "", weights), never)

    # An answer that the weights are needed is none that has taken any work.
    for _ in range(3):
        assert desk.do(FusionTask("validate", 0, list(weights), "unknown", {}), never).report["lacks_weights"]
    validate()
    validate()
    with pytest.raises(SettingsError, match="asked for validate"):
        validate()
