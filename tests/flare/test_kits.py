"""Files of a kit that somebody else has written or broken, and what is told of a kit; FLARE's own builders made it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from nvflare.fuel.sec.authz import Authorizer, AuthzContext, Person
from nvflare.security.security import COMMAND_CATEGORIES

from fedmepd.cli import main
from fedmepd.errors import SettingsError
from fedmepd.flare.kit_state import describe
from fedmepd.flare.kits import KitSettings
from fedmepd.flare.withholding import policy, withheld
from fedmepd.site_settings import SiteSettings
from tests.doctor.conftest import kit_folder, provisioned  # noqa: F401


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FEDMEPD_DATA", "FEDMEPD_CACHE", "FEDMEPD_DEVICE", "FEDMEPD_MIN_COUNT"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server_folder(provisioned: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(provisioned / "localhost", tmp_path / "localhost"))


def write(kit: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Writes a file of the kit, made from what was provisioned."""
    default, file = kit / "local" / f"{name}.default", kit / "local" / name
    content = json.loads(default.read_text()) if default.is_file() else {}
    file.write_text(json.dumps(change(content)))
    return file


BROKEN = [
    ("resources.json", {"class_allow_list": ["a.B", 5]}, "class_allow_list.1 = 5: expected a text"),
    ("resources.json", {"class_allow_list": "a.B"}, "class_allow_list = 'a.B': expected a list"),
    ("resources.json", {"class_allow_list": None}, "class_allow_list = None: expected a list"),
    ("resources.json", {"class_list_enforcement_mode": "lax"}, "expected 'enforce' or 'warn'"),
    ("resources.json", {"components": {"a": 1}}, "components: expected a list"),
    ("resources.json", {"components": ["a"]}, "components.0 = 'a': expected an object of keys and values"),
    (
        "resources.json",
        {"components": [{"id": "other"}, {"id": "job_manager", "args": {"uri_root": 5}}]},
        "components.1.args.uri_root = 5: expected a text",
    ),
    ("resources.json", {"allow_log_streaming": "no"}, "allow_log_streaming = 'no': expected true or false"),
    ("authorization.json", {"permissions": ["lead"]}, "permissions: expected an object of keys and values"),
    ("authorization.json", {"permissions": {"lead": 3}}, "permissions.lead = 3: expected a right in words"),
    ("authorization.json", {"permissions": {"lead": {"byoc": 3}}}, "permissions.lead: byoc: expected a right in words"),
    ("authorization.json", {"permissions": {"lead": {"byoc": "rarely"}}}, 'bad condition expression "rarely"'),
    ("authorization.json", {"format_version": "7"}, "format_version: must be 1.0"),
    ("privacy.json", {"scopes": 7}, "scopes = 7: expected a list"),
    ("privacy.json", {"scopes": [{"name": 1}]}, "scopes.0.name = 1: expected a text"),
]


@pytest.mark.parametrize(("name", "values", "told"), BROKEN)
def test_a_value_of_the_wrong_kind_is_named_and_nothing_is_written(
    name: str,
    values: dict,
    told: str,
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    file = write(kit_folder, name, lambda content: content | values)
    before = sorted((kit_folder / "local").iterdir())
    assert main(["kit", str(kit_folder)]) == 2
    printed = capsys.readouterr().err
    assert f"{file}: " in printed and told in printed and "say it again with `fedmepd kit`" in printed
    assert sorted((kit_folder / "local").iterdir()) == before


def test_a_policy_without_permissions(kit_folder: Path) -> None:  # noqa: F811
    write(kit_folder, "authorization.json", lambda content: {"format_version": "1.0"})
    with pytest.raises(SettingsError, match="authorization.json: permissions is missing"):
        KitSettings(kit_folder).require_readable()


@pytest.mark.parametrize(
    "values", [{"class_allow_list": ["*"]}, {"class_list_enforcement_mode": "warn"}], ids=["any name", "no list"]
)
def test_a_list_that_holds_nothing_back(values: dict, kit_folder: Path) -> None:  # noqa: F811
    """FLARE takes a star for every name, and only warns in this mode."""
    file = write(kit_folder, "resources.json", lambda content: content | values)
    kit = KitSettings(kit_folder)
    assert len(kit.too_much()) == 1
    kit.set_up()
    assert kit.too_much() == [] and "*" not in kit.allowed_classes()
    assert json.loads(file.read_text())["class_list_enforcement_mode"] == "enforce"


@pytest.mark.parametrize(
    "rights",
    [
        "any",
        {"*": "any"},
        {"*": "any", "byoc": "none"},
        # FLARE reads names in small letters and without spaces around; of two, the last.
        {" * ": "any"},
        {"submit_job": "any", "shell_commands": "any", "byoc": "any", "BYOC": "any"},
    ],
)
def test_code_is_refused_whatever_the_rights_were(rights: str | dict, kit_folder: Path) -> None:  # noqa: F811
    """FLARE looks for a word for all rights before it looks for a single one."""
    write(kit_folder, "authorization.json", lambda content: content | {"permissions": {"lead": rights}})
    kit = KitSettings(kit_folder)
    assert kit.rights("byoc") == {"lead": "any"}
    kit.refuse_code()
    kit.hide_files()
    assert kit.rights("byoc") == {} and kit.rights("tail") == {"lead": "o:site"}
    assert kit.rights("submit_job") == {"lead": "any"}


@pytest.mark.parametrize(
    "rights",
    [
        {"shell_commands": " ANY "},
        {"shell_commands": "all"},
        {"shell_commands": ["o:a", "any"]},
        {"shell_commands": "none", "cat": "Any"},
        {"shell_commands": "none", "CAT": ["all"]},
    ],
)
def test_files_are_hidden_however_everybody_is_spelt(rights: dict, kit_folder: Path) -> None:  # noqa: F811
    """And where the right to one command alone is everybody's: FLARE looks for that first."""
    write(kit_folder, "authorization.json", lambda content: content | {"permissions": {"lead": rights}})
    kit = KitSettings(kit_folder)
    assert kit.rights("cat") == {"lead": "any"} or kit.rights("tail") == {"lead": "any"}
    kit.hide_files()
    assert kit.rights("cat") == {"lead": "o:site"}
    assert kit.rights("tail") in ({"lead": "o:site"}, {})


def shown(kit: Path, capsys: pytest.CaptureFixture, *options: str) -> dict[str, str]:
    """What `fedmepd kit` says of a kit, by subject."""
    capsys.readouterr()
    assert main(["kit", str(kit), *options]) == 0
    lines = capsys.readouterr().out.partition("from its next start on:\n")[2].splitlines()
    return {line[2:20].strip(): line[21:] for line in lines}


def test_a_site_is_shown_as_a_whole_each_time(kit_folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    provisioned_log = dict(describe(KitSettings(kit_folder), SiteSettings()))["log"]
    assert provisioned_log == "its errors go to the server"
    first = shown(kit_folder, capsys)
    # The template of FLARE's builders gives these roles the right.
    assert first["jobs with code"] == "accepted from project_admin, lead"
    assert (first["withheld encoders"], first["log"]) == ("none", "stays at this site")
    flare = len(json.loads((kit_folder / "local/resources.json.default").read_text())["class_allow_list"])
    ours = "3 named by jobs of this package"
    assert first["jobs without code"] == f"may use these classes: {ours}, and {flare} in FLARE's own list"
    assert first["data"] == "no folder is named"
    assert (first["device"], first["cache"].partition(", ")[0]) == ("auto", str(Path("~/.cache/fedmepd").expanduser()))
    assert first["cache"].endswith(", in the home folder of whoever starts the kit")
    assert first["leaving"] == "no mean over fewer than 3 patients; the site allows all kinds of values"
    decided = {"data": "data", "device": "cpu", "cache": "kept", "min_count": 5}
    decided |= {"limits": {"crop": 96}, "allow": {"live": False, "losses": False}}
    (kit_folder / "local/fedmepd.json").write_text(json.dumps(decided))
    write(
        kit_folder,
        "resources.json",
        lambda content: content | {"class_allow_list": [*content["class_allow_list"], "hospital.own.Trainer"]},
    )
    changed = shown(kit_folder, capsys, "--refuse-code", "--withhold", "T1", "FLAIR")
    assert changed == shown(kit_folder, capsys)
    assert changed["jobs with code"] == "refused, no matter who submits them"
    assert changed["withheld encoders"] == "FLAIR, T1"
    assert changed["jobs without code"].endswith("besides, as somebody has added: hospital.own.Trainer")
    assert changed["files of the kit"] == "shown to the site's own organisation alone"
    data = kit_folder / "local/data"
    nowhere = "does not exist, is no folder, or cannot be entered: `fedmepd data init FOLDER --kit KIT` names one"
    assert changed["data"] == f"the data folder {data} {nowhere}"
    data.mkdir()
    assert shown(kit_folder, capsys)["data"] == str(data)
    assert (changed["device"], changed["cache"]) == ("cpu", str(kit_folder / "local/kept"))
    assert changed["limits for a job"].startswith("width 32, crop 96, ")
    assert (
        changed["leaving"] == "no mean over fewer than 5 patients; the site allows all kinds of values but losses, live"
    )
    others = "case_scores none, cross_site none, reproducible auto, privacy.epsilon "
    assert changed["other settings"] == f"{others}none, privacy.scores none"
    decided["privacy"] = {"epsilon": 3, "delta": 1e-6, "scores": "share"}
    (kit_folder / "local/fedmepd.json").write_text(json.dumps(decided))
    privacy = "3.0, privacy.per_run none, privacy.delta 1e-06, privacy.scores share"
    assert shown(kit_folder, capsys)["other settings"] == others + privacy


def test_what_others_wrote_into_a_kit_does_not_steer_the_terminal(
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    write(
        kit_folder,
        "resources.json",
        lambda content: content | {"class_allow_list": [*content["class_allow_list"], "a.\x1b[2JB"]},
    )
    assert shown(kit_folder, capsys)["jobs without code"].endswith(r"a.\x1b[2JB")


def test_variables_of_the_shell_are_named(
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The site may be started without them, as by systemd."""
    assert main(["kit", str(kit_folder)]) == 0 and "this shell" not in capsys.readouterr().out
    monkeypatch.setenv("FEDMEPD_DATA", str(kit_folder))
    assert main(["kit", str(kit_folder)]) == 0
    printed = capsys.readouterr().out
    assert f"  data               {kit_folder}\n" in printed
    assert printed.splitlines()[-1].startswith("this shell sets FEDMEPD_DATA, which wins over fedmepd.json")


def test_a_server_is_shown_with_its_folder(server_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = shown(server_folder, capsys)
    assert first["jobs and results"] == (
        "kept in /tmp/nvflare/jobs-storage, what FLARE notes of running jobs in /tmp/nvflare/snapshot-storage; a "
        "restart of the machine may empty them: choose another folder with --jobs FOLDER"
    )
    assert "withheld encoders" not in first
    shown(server_folder, capsys, "--jobs", str(tmp_path / "kept"))
    assert shown(server_folder, capsys)["jobs and results"] == (
        f"kept in {tmp_path}/kept/jobs, what FLARE notes of running jobs in {tmp_path}/kept/snapshots"
    )


@pytest.mark.parametrize(
    ("rights", "files", "code"),
    [
        # A right that is named by itself overrides its category; FLARE reads names in small letters.
        ({"shell_commands": "none", "cat": "any"}, "shown to lead", "refused, no matter who submits them"),
        (
            {"BYOC": ["o:a", "n:submitter"]},
            "shown to nobody",
            "accepted from lead (o:a or n:sub",
        ),
        ("o:b", "shown to lead (o:b)", "accepted from lead (o:b)"),
        # FLARE's words for nobody, everybody, and all but some.
        ("not any", "shown to nobody", "refused, no matter who submits them"),
        ({"shell_commands": "none", "byoc": "NOT  all"}, "shown to nobody", "refused, no matter who submits them"),
        (["not any", "any"], "shown to nobody", "refused, no matter who submits them"),
        ({"shell_commands": ["all"], "byoc": "not none"}, "shown to lead", "accepted from lead"),
        ("not o:b", "shown to lead (any but not o:b)", "accepted from lead (any but not o:b)"),
        (
            {"cat": "o:a", "byoc": ["o:a", "none", "not n:x"]},
            "shown to lead (o:a)",
            "accepted from lead (o:a but not n:x)",
        ),
        ({"cat": ["o:a", "not o:a"]}, "shown to nobody", "refused, no matter who submits them"),
    ],
)
def test_rights_are_told_as_flare_reads_them(rights: Any, files: str, code: str, kit_folder: Path) -> None:  # noqa: F811
    write(kit_folder, "authorization.json", lambda content: content | {"permissions": {"lead": rights}})
    state = dict(describe(KitSettings(kit_folder), SiteSettings()))
    assert state["files of the kit"] == files and state["jobs with code"].startswith(code)


def test_whose_code_is_accepted_is_what_flare_does(kit_folder: Path) -> None:  # noqa: F811
    """All pairs of words, against FLARE's own decision about some people."""
    words = ["any", "none", "no", "not any", "not none", "not o:a", "o:a", "n:x", "not n:x", "o:site"]
    people = [Person(name, org, "lead") for name in ("x", "y") for org in ("a", "b", "home")]
    for pair in product(words, repeat=2):
        content = {"format_version": "1.0", "permissions": {"lead": {"byoc": list(pair)}}}
        (kit_folder / "local/authorization.json").write_text(json.dumps(content))
        flare = Authorizer("home", COMMAND_CATEGORIES)
        assert not flare.load_policy(content)
        may = [flare.authorize(AuthzContext("byoc", person, person))[0] for person in people]
        told = KitSettings(kit_folder).rights("byoc")
        assert (told == {}, told == {"lead": "any"}) == (not any(may), all(may)), pair


@pytest.mark.parametrize("name", ["resources.json", "authorization.json", "privacy.json"])
@pytest.mark.parametrize("what", ["folder", "link"])
def test_something_else_in_place_of_a_file_is_no_missing_file(
    name: str,
    what: str,
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    file = kit_folder / "local" / name
    file.mkdir() if what == "folder" else file.symlink_to("gone")
    before = sorted((kit_folder / "local").iterdir())
    assert main(["kit", str(kit_folder)]) == 2
    printed = capsys.readouterr().err
    assert f"fedmepd: {file} is a {what}" in printed and "expected a file: correct it, or restore it" in printed
    assert sorted((kit_folder / "local").iterdir()) == before


@pytest.mark.parametrize(("option", "file"), [("--refuse-code", "authorization.json"), ("--withhold", "privacy.json")])
def test_a_decision_is_taken_back_as_the_help_says(
    option: str,
    file: str,
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    """By hand alone: no other command undoes it."""
    with pytest.raises(SystemExit):
        main(["kit", "--help"])
    assert f"delete local/{file} in the kit" in " ".join(capsys.readouterr().out.split())
    before = shown(kit_folder, capsys)
    decided = shown(kit_folder, capsys, option, *(["T1"] if option == "--withhold" else []))
    assert decided != before and shown(kit_folder, capsys) == decided
    (kit_folder / "local" / file).unlink()
    assert shown(kit_folder, capsys) == before


def test_the_cache_of_a_user_without_a_home_folder(
    kit_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container whose user has no entry in passwd, where Python finds no home folder either."""
    monkeypatch.setenv("HOME", "~")
    assert shown(kit_folder, capsys)["cache"].startswith("no place for it, since this user has no home folder")
    monkeypatch.setenv("FEDMEPD_CACHE", "/shared/cache")
    assert shown(kit_folder, capsys)["cache"] == "/shared/cache"


def test_a_policy_of_somebody_else_is_told(kit_folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    write(kit_folder, "privacy.json", lambda content: {"scopes": [{"name": "own", "task_result_filters": []}]})
    assert "which `fedmepd kit` has not written" in shown(kit_folder, capsys)["withheld encoders"]


def test_a_bad_limit_is_refused_before_anything_is_written(kit_folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    (kit_folder / "local/fedmepd.json").write_text('{"limits": {"cache_gib": "much"}}')
    assert main(["kit", str(kit_folder)]) == 2
    assert "limits.cache_gib = 'much': expected a number of GiB" in capsys.readouterr().err
    assert not (kit_folder / "local/resources.json").exists()


@pytest.mark.parametrize("modalities", [("T1",), ("FLAIR", "T1ce")])
def test_what_is_withheld_is_read_back(modalities: tuple[str, ...]) -> None:
    made = policy(modalities)
    assert withheld(made) == modalities
    made["scopes"][0]["task_result_filters"].append({"path": "hospital.own.Filter"})
    assert withheld(made) is None and withheld({"scopes": []}) is None and withheld({}) is None
