"""What a process opens: real data, folders of the run, and what the machine's own settings say."""

from dataclasses import replace

import pytest
from nvflare.apis.fl_constant import FLContextKey

from fedmepd.data.preparation import PreparedCases
from fedmepd.errors import DataError, SettingsError
from fedmepd.federation.exchange import SiteProfile
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.timing import Timing
from fedmepd.flare.folders import server_folder
from fedmepd.flare.opening import kept_fusion, open_server, open_site
from fedmepd.flare.private import SIMULATOR_JOB
from fedmepd.flare.translation import Run
from tests.flare.fakes import Engine
from tests.tiny import COUNTS, never, settings


@pytest.fixture
def machine(tiny, monkeypatch):
    monkeypatch.setenv("FEDMEPD_DATA", str(tiny.machine.data))
    monkeypatch.setenv("FEDMEPD_CACHE", str(tiny.machine.cache))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")


def context(folder, name):
    return Engine(folder, name).new_context()


def nothing(line):
    pass


def test_site_of_a_named_run(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CROSS_SITE", "share")
    with context(tmp_path, "site-1") as fl_ctx:
        site, desk = open_site(Run("run-1", settings(run_name="first")), nothing, fl_ctx)
    assert desk is None and site.folder == tmp_path / "fedmepd_runs/first/run-1"
    profile = site.profile()
    assert (profile.name, profile.cases, profile.fusion) == ("site-1", COUNTS["site-1"], None)
    assert profile.cross_site == "share"


def test_fusion_site_at_a_site(machine, tiny_apart, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_DATA", str(tiny_apart.machine.data))
    run = Run("run-1", settings(fusion={"site": "site-1"}, aggregation={"wire_precision": "float32"}))
    with context(tmp_path, "site-1") as fl_ctx:
        site, desk = open_site(run, nothing, fl_ctx)
    assert desk.site.data.counts() == COUNTS["fusion"] and site.data.counts() == COUNTS["site-1"]
    with context(tmp_path / "other", "site-2") as fl_ctx:
        assert open_site(run, nothing, fl_ctx)[1] is None


def test_fusion_site_with_patients_of_the_sites_own(machine, tmp_path):
    """Refused before anything is trained; the public part of the message names nobody."""
    run = Run("run-1", settings(fusion={"site": "site-1"}))
    with context(tmp_path, "site-1") as fl_ctx, pytest.raises(DataError, match="patient case-3 is among") as error:
        open_site(run, nothing, fl_ctx)
    expected = "the site's data cannot be used: patient of the site and of fusion training (6)"
    assert error.value.public == expected


def test_server_with_the_fusion_site_in_its_process(machine, tmp_path):
    with context(tmp_path, "server") as fl_ctx:
        server = open_server(Run("run-1", settings()), tmp_path / "state", None, Timing(), nothing, fl_ctx)
    assert server.round == -1 and server.results()["server"]["cases"] == COUNTS["fusion"]


def test_server_without_data(machine, tmp_path, monkeypatch):
    """It needs them where it is the fusion site."""
    monkeypatch.setenv("FEDMEPD_DATA", str(tmp_path / "nowhere"))
    with context(tmp_path, "server") as fl_ctx, pytest.raises(DataError, match="nowhere does not exist"):
        open_server(Run("run-1", settings()), tmp_path / "state", None, Timing(), nothing, fl_ctx)


def test_what_a_run_keeps_of_its_fusion_site(machine, tmp_path):
    run = Run("run-1", settings(fusion={"site": "site-1"}))
    assert kept_fusion(run, tmp_path / "state") is None
    hospital = SiteProfile("site-1", (), dict.fromkeys(COUNTS["fusion"], 0), "folder", fusion=COUNTS["fusion"])
    elsewhere = FusionElsewhere(run.settings, replace(hospital, cross_site="share"), None)
    with context(tmp_path, "server") as fl_ctx:
        server = open_server(run, tmp_path / "state", elsewhere, Timing(), nothing, fl_ctx)
    server.round = 0
    server.finished = True
    server._keep()
    assert kept_fusion(run, tmp_path / "state") == (replace(hospital, cross_site="share"), True)


def test_the_limits_of_the_site_come_before_its_data(machine, tmp_path, monkeypatch):
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text('{"limits": {"batch": 1}}')
    monkeypatch.setenv("FEDMEPD_DATA", str(tmp_path / "nowhere"))
    with context(tmp_path, "site-1") as fl_ctx, pytest.raises(SettingsError) as error:
        open_site(Run("run-1", settings()), nothing, fl_ctx)
    assert error.value.public == "training.batch is 2 in the job, limits.batch is 1 at this site"


def test_a_job_that_may_need_more_memory_than_the_site_has_for_it(machine, tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text('{"limits": {"memory_gib": 0.5}}')
    # Python and its libraries alone need more.
    told = "may need 0.9 GiB of memory, limits.memory_gib is 0.5 at this site"
    with context(tmp_path, "site-1") as fl_ctx, pytest.raises(SettingsError, match=told):
        open_site(Run("run-1", settings()), nothing, fl_ctx)
    with context(tmp_path, "server") as fl_ctx, pytest.raises(SettingsError, match=told):
        open_server(Run("run-1", settings()), tmp_path / "state", None, Timing(), nothing, fl_ctx)


def test_what_the_fusion_site_needs_counts_at_the_hospital_where_it_is(machine, tiny_apart, tmp_path, monkeypatch):
    """It trains with all modalities, and the hospital has fewer."""
    monkeypatch.setenv("FEDMEPD_DATA", str(tiny_apart.machine.data))
    monkeypatch.setattr("fedmepd.training.memory_needs.memory_need", lambda of, modalities: len(modalities) * 2**30)
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text('{"limits": {"memory_gib": 3}}')
    with context(tmp_path, "site-1") as fl_ctx:
        open_site(Run("run-1", settings()), nothing, fl_ctx)
        with pytest.raises(SettingsError, match="may need 4.0 GiB"):
            open_site(Run("run-2", settings(fusion={"site": "site-1"})), nothing, fl_ctx)


def test_a_site_whose_runs_fill_its_disk_opens_no_other(machine, tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text(f'{{"limits": {{"disk_gib": {1 / 1024}}}}}')
    for place in ("job-0/fedmepd", "fedmepd_runs/first/run-7"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "state_00001.pt").write_bytes(bytes(600 * 1024))
    with context(tmp_path, "site-1") as fl_ctx, pytest.raises(SettingsError, match="its runs hold 0.00114 GiB"):
        open_site(Run("run-1", settings()), nothing, fl_ctx)

    # The run that has filled it goes on, as far as it writes nothing more.
    with context(tmp_path, "site-1") as fl_ctx:
        open_site(Run("run-7", settings(run_name="first")), nothing, fl_ctx)


@pytest.mark.parametrize("place", ["egress.jsonl", "fedmepd_privacy/privacy.json"])
def test_the_books_that_a_site_keeps_of_all_runs_count_too(place, machine, tmp_path):
    """A server that asks without end fills the disk with lines about the answers."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text(f'{{"limits": {{"disk_gib": {1 / 1024}}}}}')
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(bytes(1200 * 1024))
    with context(tmp_path, "site-1") as fl_ctx, pytest.raises(SettingsError, match="hold 0.00114 GiB") as refused:
        open_site(Run("run-1", settings()), nothing, fl_ctx)
    # Nobody is advised to move a record of spent privacy away.
    assert place not in str(refused.value)


def test_jobs_that_have_the_cases_prepared_again_and_again(machine, tmp_path, monkeypatch):
    """Of every other `data.clip_percent` there is a whole copy of the cases, and no run's folder holds it."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "local").mkdir()

    def open_and_prepare(clip_percent):
        asked = settings(data={"clip_percent": clip_percent})
        with context(tmp_path, "site-1") as fl_ctx:
            site, _ = open_site(Run("1" * 32, asked), nothing, fl_ctx)
        cases = site.data.train
        PreparedCases(cases, site.data.cache, clip_percent)[0]
        return sum(file.stat().st_size for file in site.data.cache.glob("*.pt"))

    once = open_and_prepare(0.0)
    assert open_and_prepare(1.0) > 1.9 * once
    (tmp_path / "local/fedmepd.json").write_text(f'{{"limits": {{"cache_gib": {1.5 * once / 2**30}}}}}')
    with pytest.raises(SettingsError, match="its prepared cases hold .* GiB: remove .*/cache/prepared") as error:
        open_and_prepare(2.0)
    assert str(tmp_path) not in error.value.public


@pytest.mark.parametrize("simulated", [False, True])
def test_a_site_is_open_in_the_simulator_alone(machine, tmp_path, simulated):
    """Not where a server has merely named its job like the simulator's."""
    with Engine(tmp_path, "site-1", job=SIMULATOR_JOB).new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.SIMULATE_MODE, simulated, private=True, sticky=True)
        site, _ = open_site(Run("run-1", settings()), nothing, fl_ctx)
    assert site.disclosure.fewest == (1 if simulated else 3)
    assert [path.name for path in site.folder.glob("secret.json")] == ([] if simulated else ["secret.json"])


def test_the_server_with_the_fusion_site_has_limits_and_a_secret_too(machine, tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local/fedmepd.json").write_text('{"limits": {"batch": 1}}')
    with context(tmp_path, "server") as fl_ctx, pytest.raises(SettingsError, match="limits.batch is 1"):
        open_server(Run("run-1", settings()), tmp_path / "state", None, Timing(), nothing, fl_ctx)
    (tmp_path / "local/fedmepd.json").write_text("{}")
    with context(tmp_path, "server") as fl_ctx:
        folder = server_folder(fl_ctx, settings())
        server = open_server(Run("run-1", settings()), folder, None, Timing(), nothing, fl_ctx)
        server.start(never)
        server.finish(never)
    # Whoever downloads the job gets the server's run folder. It is not for them to repeat the fusion site's training,
    # nor to read what single sites have sent.
    (secret,) = tmp_path.rglob("secret.json")
    assert secret.is_relative_to(folder)
    handed_out = {str(path.relative_to(tmp_path / "job-1")) for path in (tmp_path / "job-1").rglob("*.*")}
    models = {"fedmepd/global_best.pt", "fedmepd/global_last.pt", "fedmepd/model_card.md"}
    assert handed_out - models == {"results/results.json", "results/results.md", "results/history.json"}
    assert handed_out & models == {f"fedmepd/{path.name}" for path in folder.glob("[gm]*.*")}
    assert "model of server" in (tmp_path / "job-1/fedmepd/model_card.md").read_text()
