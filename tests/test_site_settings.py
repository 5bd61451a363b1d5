import json
from pathlib import Path

import pytest
import torch

from fedmepd.errors import SettingsError
from fedmepd.site_settings import FILE_NAME, SiteSettings, has_home


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for variable in ("FEDMEPD_DATA", "FEDMEPD_DEVICE", "FEDMEPD_CACHE", "FEDMEPD_CASE_SCORES", "FEDMEPD_MIN_COUNT"):
        monkeypatch.delenv(variable, raising=False)


def write(folder, content):
    (folder / "fedmepd.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("with_folder", [False, True])
def test_defaults(tmp_path, with_folder):
    settings = SiteSettings.load(tmp_path if with_folder else None)
    assert (settings.data, settings.device, settings.cache) == (None, "auto", Path.home() / ".cache" / "fedmepd")


def test_file_and_environment(tmp_path, monkeypatch):
    write(tmp_path, {"data": "/file/data", "device": "cpu", "cache": "kept"})
    settings = SiteSettings.load(tmp_path)
    assert (settings.data, settings.device, settings.cache) == (Path("/file/data"), "cpu", tmp_path / "kept")
    monkeypatch.setenv("FEDMEPD_DATA", "~/data")
    monkeypatch.setenv("FEDMEPD_CACHE", "/var/here")
    monkeypatch.setenv("FEDMEPD_DEVICE", "cuda:1")
    settings = SiteSettings.load(tmp_path)
    assert (settings.data, settings.device, settings.cache) == (Path.home() / "data", "cuda:1", Path("/var/here"))
    assert settings.cross_site == "none"
    monkeypatch.setenv("FEDMEPD_CROSS_SITE", "test")
    assert SiteSettings.load(tmp_path).cross_site == "test"
    assert SiteSettings.load(tmp_path).case_scores == "none"
    monkeypatch.setenv("FEDMEPD_CASE_SCORES", "share")
    assert SiteSettings.load(tmp_path).case_scores == "share"
    assert (settings.min_count, settings.reproducible) == (3, "auto")
    monkeypatch.setenv("FEDMEPD_MIN_COUNT", "7")
    assert SiteSettings.load(tmp_path).min_count == SiteSettings.load(tmp_path).disclosure().fewest == 7
    monkeypatch.setenv("FEDMEPD_DATA", "")
    assert SiteSettings.load(tmp_path).data == Path("/file/data")


@pytest.mark.parametrize(("variable", "key"), [("FEDMEPD_DATA", "data"), ("FEDMEPD_CACHE", "cache")])
def test_a_relative_path_in_a_variable(variable, key, tmp_path, monkeypatch):
    """A command starts where its user is, a process of FLARE does not."""
    monkeypatch.setenv(variable, "sites")
    assert getattr(SiteSettings.load(), key) == Path.cwd() / "sites"
    with pytest.raises(SettingsError, match=f"{variable} = sites.*such as {variable}=.PWD/sites"):
        SiteSettings.load(tmp_path)


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_folder(home, monkeypatch):
    """Only where a cache is needed, its place has to be said."""
    monkeypatch.delenv("FEDMEPD_CACHE", raising=False)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    # HOME missing, the user's entry in passwd tells the home folder, if there is one.
    if home is None and has_home():
        assert SiteSettings.load().cache == Path("~/.cache/fedmepd").expanduser()
        return
    with pytest.raises(SettingsError, match="no home folder.*set FEDMEPD_CACHE"):
        SiteSettings.load()
    assert SiteSettings.load(cache_needed=False).cache is None
    monkeypatch.setenv("FEDMEPD_CACHE", "/var/here")
    assert SiteSettings.load().cache == Path("/var/here")
    monkeypatch.setenv("FEDMEPD_DATA", "~nobody-of-this-name/data")
    with pytest.raises(SettingsError, match="without ~"):
        SiteSettings.load()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"dta": "/x"}, ("fedmepd.json", "key dta", "data, device, cache")),
        ({"device": 3}, ("fedmepd.json", "device = 3")),
        ({"cache": None}, ("fedmepd.json", "cache = None")),
        ({"cross_site": "yes"}, ("fedmepd.json", "cross_site = 'yes'", "'none', 'test' or 'share'")),
        ({"case_scores": "test"}, ("fedmepd.json", "case_scores = 'test'", "'none' or 'share'")),
        ({"limits": {"crp": 64}}, ("fedmepd.json", "limits.crp", "width, crop, window")),
        (
            {"limits": {"crop": 1000}},
            (
                "fedmepd.json: limits.crop = 1000: expected a whole number of voxels, at",
                "16, at most 256; default: 128",
            ),
        ),
        (
            {"limits": {"cache_gib": "much"}},
            ("limits.cache_gib = 'much': expected a number of GiB, above 0, at most 1000000; default: 500",),
        ),
        ({"limits": {"disk_gib": 0}}, ("limits.disk_gib = 0: expected a number of GiB, above 0", "default: 100")),
        ({"limits": {"task_seconds": -1}}, ("expected a number of seconds, above 0", "default: 14400")),
        ({"limits": 64}, ("fedmepd.json: limits = 64: expected an object of keys and values",)),
        ({"allow": {"durations": "no"}}, ("fedmepd.json", "allow.durations = 'no'", "expected true or false")),
        ({"allow": {"seconds": False}}, ("fedmepd.json", "allow.seconds", "durations, memory, live")),
        ({"min_count": 0}, ("fedmepd.json: min_count = 0: expected a whole number, at least 1", "default: 3")),
        ({"reproducible": True}, ("fedmepd.json", "reproducible = True", "'auto', 'yes' or 'no'")),
        ("{data: 1}", ("fedmepd.json", "JSON", "correct it, or restore it from a backup")),
        ("[]", ("fedmepd.json", "an array", "correct it, or restore it from a backup")),
        ("\ufeff{}", ("fedmepd.json", "byte order mark: save it as UTF-8 without one")),
    ],
)
def test_bad_file(tmp_path, content, named):
    write(tmp_path, content)
    with pytest.raises(SettingsError) as error:
        SiteSettings.load(tmp_path)
    assert all(name in str(error.value) for name in named)


@pytest.mark.parametrize("what", ["folder", "link"])
def test_something_else_in_its_place_is_no_missing_file(what, tmp_path):
    """The defaults would take back what the site has decided."""
    (tmp_path / "fedmepd.json").mkdir() if what == "folder" else (tmp_path / "fedmepd.json").symlink_to("gone")
    with pytest.raises(SettingsError, match=f"fedmepd.json is a {what}.*expected a file: correct it, or restore it"):
        SiteSettings.load(tmp_path)


def test_where_data_lead(tmp_path):
    """Of a folder, of a link to one, of a file, and of nothing."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "file").touch()
    for name in ("data", "link"):
        assert SiteSettings(data=tmp_path / name).why_no_data() == ""
    for name in ("file", "gone", "file/data"):
        why = SiteSettings(data=tmp_path / name).why_no_data()
        assert why == f"the data folder {tmp_path / name} does not exist, is no folder, or cannot be entered"
    assert SiteSettings().why_no_data() == ""


def test_device():
    assert SiteSettings(device="cpu").torch_device() == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert SiteSettings().torch_device() == torch.device(expected)


# PyTorch has the device meta, whose tensors hold nothing.
@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:-1", "meta", "mps", "cpu:1", ""])
def test_device_that_does_not_exist(device):
    with pytest.raises(SettingsError, match=f"'{device}' does not exist.*FEDMEPD_DEVICE"):
        SiteSettings(device=device).torch_device()


@pytest.mark.parametrize(
    ("chosen", "phantoms", "patients"), [("auto", True, False), ("yes", True, True), ("no", False, False)]
)
def test_whose_training_can_be_repeated(chosen, phantoms, patients):
    settings = SiteSettings(reproducible=chosen)
    assert (settings.is_reproducible("phantom"), settings.is_reproducible("folder")) == (phantoms, patients)


def test_other_processes_read_the_same_settings(tmp_path, monkeypatch):
    """What nobody has set stays unset there: sites on one machine are as open as they can be."""
    chosen = SiteSettings.load().model_copy(update={"data": tmp_path / "data", "case_scores": "share", "device": "cpu"})
    for variable, value in chosen.variables().items():
        monkeypatch.setenv(variable, value)
    read = SiteSettings.load()
    assert read == chosen
    assert read.for_one_machine().min_count == 1
    monkeypatch.setenv("FEDMEPD_MIN_COUNT", "5")
    assert SiteSettings.load().variables()["FEDMEPD_MIN_COUNT"] == "5"


@pytest.mark.parametrize("value", [3, ["a"]])
def test_a_folder_that_is_no_text(value: object, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({"data": value}))
    with pytest.raises(SettingsError, match="data.*expected a path as a text"):
        SiteSettings.load(tmp_path, cache_needed=False)


@pytest.mark.parametrize(("variable", "hint"), [("FEDMEPD_DATE", "FEDMEPD_DATA"), ("FEDMEPD_EPSILON", "fedmepd.json")])
def test_a_variable_that_no_setting_has(variable: str, hint: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(variable, "3")
    with pytest.raises(SettingsError, match=f"environment variable {variable}: no setting") as refused:
        SiteSettings.load(tmp_path)
    assert hint in str(refused.value)
    # As of a setting: an empty one is not set.
    monkeypatch.setenv(variable, "")
    assert SiteSettings.load(tmp_path).data is None


@pytest.mark.parametrize(
    "variable", ["SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_8002_TCP_ADDR", "A_SERVICE_PORT"]
)
def test_variables_of_a_service_in_kubernetes(variable: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(f"FEDMEPD_{variable}", "10.0.0.1")
    assert SiteSettings.load(tmp_path).data is None
