import pytest
from nvflare.apis.fl_constant import FLContextKey, ProcessType

from fedmepd.errors import CheckpointError
from fedmepd.flare import folders
from fedmepd.flare.private import SIMULATOR_JOB
from fedmepd.job_settings import make_settings
from tests.flare.fakes import Engine

NAMED, UNNAMED = make_settings("phantom", {"run_name": "first"}), make_settings("phantom")


@pytest.mark.parametrize(
    ("job", "settings", "expected"),
    [
        ("0b1c", UNNAMED, "kit/site-1/0b1c/fedmepd"),
        ("0b1c", NAMED, "kit/site-1/fedmepd_runs/first"),
        ("simulate_job", UNNAMED, "kit/site-1/simulate_job/fedmepd"),
        # The simulator empties "kit" at its next start.
        ("simulate_job", NAMED, "kit_runs/first/site-1"),
    ],
)
def test_state_folder(tmp_path, job, settings, expected):
    with Engine(tmp_path / "kit/site-1", "site-1", job).new_context() as context:
        assert folders.state_folder(context, settings) == tmp_path / expected
        assert folders.local_folder(context) == tmp_path / "kit/site-1/local"


@pytest.mark.parametrize(
    ("simulated", "expected"), [(False, "kit/site-1/fedmepd_runs/first"), (True, "kit_runs/first/site-1")]
)
def test_a_job_named_like_the_simulators_opens_nothing_at_a_site(tmp_path, simulated, expected):
    """A server names its jobs: by that name it could have had states written beside the kit, and budgets reset."""
    with Engine(tmp_path / "kit/site-1", "site-1", "simulate_job").new_context() as context:
        context.set_prop(FLContextKey.PROCESS_TYPE, ProcessType.CLIENT_JOB, private=True, sticky=True)
        context.set_prop(FLContextKey.SIMULATE_MODE, simulated, private=True, sticky=True)
        folder = folders.state_folder(context, NAMED)
        account = folders.privacy_account(context, folder)
    assert folder == tmp_path / expected
    of_all_runs = tmp_path / "kit/site-1/fedmepd_privacy/privacy.json"
    assert account.path == (folder / "privacy.json" if simulated else of_all_runs)


def test_account_of_a_kit_whose_runs_lie_on_another_disk(tmp_path):
    """An administrator moves them and leaves a link: it is the same run still."""
    kit = tmp_path / "kit/site-1"
    with Engine(kit, "site-1", "job-1").new_context() as context:
        folder = folders.state_folder(context, NAMED)
        before = folders.privacy_account(context, folder)
        moved = tmp_path / "disk"
        folder.mkdir(parents=True)
        folder.parent.rename(moved)
        folder.parent.symlink_to(moved, target_is_directory=True)
        assert folders.privacy_account(context, folder) == before
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "kit", target_is_directory=True)
    with Engine(link / "site-1", "site-1", "job-1").new_context() as context:
        assert folders.privacy_account(context, folders.state_folder(context, NAMED)) == before


@pytest.mark.parametrize(("settings", "expected"), [(UNNAMED, "fedmepd_jobs/job-1"), (NAMED, "fedmepd_runs/first")])
def test_a_servers_state_is_not_in_the_folder_that_is_handed_out(tmp_path, settings, expected):
    with Engine(tmp_path, "server", "job-1").new_context() as context:
        folder = folders.server_folder(context, settings)
        assert folder == tmp_path / expected
        assert not folder.is_relative_to(folders.run_folder(context))
        # A record of spent privacy names the run by its place in the kit.
        assert folders.privacy_account(context, folder / "fusion").run == f"{expected}/fusion"
        assert folders.download_folder(context) == folders.run_folder(context) / "fedmepd"


def test_in_the_simulator_everything_is_in_the_run_folder(tmp_path):
    with Engine(tmp_path / "server", "server", SIMULATOR_JOB).new_context() as context:
        assert folders.server_folder(context, UNNAMED) == folders.run_folder(context) / "fedmepd"
        assert folders.server_folder(context, NAMED) == folders.state_folder(context, NAMED)
        assert folders.download_folder(context) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(UNNAMED, "site-1/job-1/fedmepd"), (NAMED, "site-1/fedmepd_runs/first/run-1")],
)
def test_site_folder(tmp_path, settings, expected):
    with Engine(tmp_path / "site-1", "site-1", "job-1").new_context() as context:
        assert folders.site_folder(context, settings, "run-1") == tmp_path / expected


def test_identity_stays_with_the_folder_and_differs_between_folders(tmp_path):
    first = folders.run_identity(tmp_path / "a")
    assert folders.run_identity(tmp_path / "a") == first
    assert folders.run_identity(tmp_path / "b") != first


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_damaged_identity_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json .*remove"):
        folders.run_identity(tmp_path)


@pytest.mark.parametrize(("job", "settings"), [("0b1c", NAMED), ("simulate_job", UNNAMED)])
def test_no_link_where_the_state_is_the_run_folders_or_is_packed_for_download(tmp_path, job, settings):
    with Engine(tmp_path / "kit/site-1", "site-1", job).new_context() as context:
        folders.run_folder(context).mkdir(parents=True)
        folders.show_state(context, settings, folders.state_folder(context, settings))
        assert list(folders.run_folder(context).iterdir()) == []


def test_a_link_to_the_state_of_a_named_run_that_moves_with_its_workspace(tmp_path):
    with Engine(tmp_path / "w/kit/site-1", "site-1", "simulate_job").new_context() as context:
        folders.run_folder(context).mkdir(parents=True)
        state = folders.site_folder(context, NAMED, "run-1")
        for _ in range(2):
            folders.show_state(context, NAMED, state)
    state.mkdir(parents=True)
    (state / "model_best.pt").touch()
    (tmp_path / "w").rename(tmp_path / "moved")
    assert (tmp_path / "moved/kit/site-1/simulate_job/fedmepd/model_best.pt").is_file()
