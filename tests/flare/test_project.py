"""The project file that `fedmepd project` writes; tests/test_provisioning.py has what FLARE makes of such files."""

from pathlib import Path

import pytest
import yaml

from fedmepd.cli import main
from fedmepd.errors import SettingsError
from fedmepd.flare.project import project_text

REPOSITORY = Path(__file__).parents[2] / "provisioning/project.yml"


def participants(project, *types):
    return [one for one in project["participants"] if one["type"] in types]


def test_the_same_federation_as_in_the_repository():
    """But for the names of organisations and people, which the repository's example has its own."""
    sites = [f"site-{number}" for number in range(1, 9)]
    made = yaml.safe_load(project_text(sites, "fl.fedmepd.example.org", 8002, "site-1"))
    example = yaml.safe_load(REPOSITORY.read_text())
    for key in ("api_version", "name", "description", "allow_log_streaming", "builders"):
        assert made[key] == example[key]
    assert participants(made, "server") == participants(example, "server")
    for ours, theirs in zip(participants(made, "client"), participants(example, "client"), strict=True):
        assert ours["name"] == theirs["name"]
    roles = {one["role"] for one in participants(example, "admin")}
    assert {one["role"] for one in participants(made, "admin")} == roles - {"member"}


def test_people_control_their_own_hospital_alone():
    made = yaml.safe_load(project_text(["north", "south_2"], "10.0.0.7", 443))
    clients, people = participants(made, "client"), participants(made, "admin")
    assert {one["name"]: one["org"] for one in clients} == {"north": "north", "south_2": "south_2"}
    by_role = {one["role"]: one["org"] for one in people if one["role"] != "org_admin"}
    assert by_role == {"project_admin": "coordinating_centre", "lead": "research_group"}
    it = {one["name"]: one["org"] for one in people if one["role"] == "org_admin"}
    assert it == {"it@north.fedmepd.local": "north", "it@south-2.fedmepd.local": "south_2"}
    [server] = participants(made, "server")
    assert (server["name"], server["fed_learn_port"]) == ("10.0.0.7", 443)


def test_words_that_yaml_takes_for_something_else():
    made = yaml.safe_load(project_text(["no", "12"], "flare.org", 8002))
    assert [(one["name"], one["org"]) for one in participants(made, "client")] == [("no", "no"), ("12", "12")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "a"], "h", 1), "expected each name once"),
        (([], "h", 1), "expected each name once"),
        ((["a", "fusion"], "h", 1), "'fusion' is the name of the fusion site's data"),
        ((["a b"], "h", 1), "--sites: 'a b' cannot be such a name"),
        ((["a-b", "a_b"], "h", 1), "differ in letters or digits"),
        ((["a"], "h_1", 1), "--server: 'h_1' cannot be such a name"),
        ((["a"], "h", 0), "--port 0: expected 1 to 65535"),
        ((["a"], "h", 1, "b"), "--fusion-site b: expected one of a"),
        ((["a"], "h", 1, "", "my project"), "--name: 'my project'"),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(SettingsError, match=message):
        project_text(*arguments)


def test_the_command_and_a_file_that_is_there(tmp_path, capsys):
    out = tmp_path / "project.yml"
    command = ["project", "--sites", "a, b,c", "--server", "flare.org", "--fusion-site", "b", "--out", str(out)]
    assert main(command) == 0
    assert f"nvflare provision -p {out} -w workspace" in capsys.readouterr().out
    assert [one["name"] for one in participants(yaml.safe_load(out.read_text()), "client")] == ["a", "b", "c"]
    before = out.read_text()
    assert main([*command, "--port", "1234"]) == 2
    assert f"{out} exists already" in capsys.readouterr().err and out.read_text() == before
