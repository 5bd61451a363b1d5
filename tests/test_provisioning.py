"""provisioning/project.yml makes kits, and `fedmepd kit` sets them up, as FLARE itself understands them."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.filters.exclude_vars import ExcludeVars
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.app_opt.job_launcher.study_runtime import load_study_runtime_file
from nvflare.fuel.sec.authz import AuthzContext, Person, parse_policy_config
from nvflare.fuel.utils.class_loader import load_class
from nvflare.security.security import COMMAND_CATEGORIES
from nvflare.tool.kit.kit_config import resolve_startup_kit_dir

from fedmepd.cli import main
from fedmepd.cli.federation import start_kit
from fedmepd.doctor.federation import job_settings
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.flare import kits
from fedmepd.flare.admission import SiteAdmission
from fedmepd.flare.kits import admin_kit
from fedmepd.flare.tracking import TRACKERS
from fedmepd.networks.network import FedMEPDNet
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from tests.data.files import write_case
from tests.system.production import provision

ROOT = Path(__file__).parents[1]
SERVER = "fl.fedmepd.example.org"
SITES = [f"site-{number}" for number in range(1, 9)]
ROLES = {
    "admin@fedmepd.example.org": "project_admin",
    "lead@fedmepd.example.org": "lead",
    "it@hospital-1.example.org": "org_admin",
    "member@hospital-2.example.org": "member",
}
ORGANISATIONS = {
    "project_admin": "coordinating_centre",
    "lead": "research_group",
    "org_admin": "hospital_1",
    "member": "hospital_2",
}


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("provisioned")
    return provision(folder, os.environ | {"HOME": str(folder)})


@pytest.fixture
def kit(provisioned, tmp_path):
    """Copies a kit, to be changed."""
    return lambda name: Path(shutil.copytree(provisioned / name, tmp_path / name))


def test_a_kit_for_every_party(provisioned):
    assert {path.name for path in provisioned.iterdir()} == {SERVER, *SITES, *ROLES}
    for site in SITES:
        client = json.loads((provisioned / site / "startup/fed_client.json").read_text())
        assert client["servers"][0]["service"]["target"] == f"{SERVER}:8002"
        assert client["client"]["connection_security"] == "mtls"


def test_a_certificate_for_every_party(provisioned):
    seen = set()
    for kit_folder in provisioned.iterdir():
        name = "server" if kit_folder.name == SERVER else "client"
        certificate = x509.load_pem_x509_certificate((kit_folder / f"startup/{name}.crt").read_bytes())
        subject = {attribute.oid._name: attribute.value for attribute in certificate.subject}
        assert subject["commonName"] == kit_folder.name
        assert subject.get("unstructuredName") == ROLES.get(kit_folder.name)
        key = kit_folder / f"startup/{name}.key"
        assert key.stat().st_mode & 0o077 == 0
        seen.add(certificate.serial_number)
    assert len(seen) == 1 + 8 + 4


def test_no_log_leaves_a_site(provisioned):
    for site in SITES:
        assert (
            json.loads((provisioned / site / "local/resources.json.default").read_text())["allow_log_streaming"]
            is False
        )


def is_allowed(kit_folder: Path, path: str) -> bool:
    authorizer = ComponentPathAuthorizer()
    allowed, _, _ = authorizer._get_policy_from_file(str(kits.KitSettings(kit_folder).local / kits.RESOURCES))
    return any(authorizer._path_matches_prefix(path, prefix) for prefix in allowed)


def component_paths(value):
    if isinstance(value, dict):
        yield from [value["path"]] if isinstance(value.get("path"), str) else []
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from component_paths(one)


# FLARE calls what a job names, with the arguments that the job gives: these start programs, run any command of this
# package, write any file, or import any module that lies below the kit, where earlier jobs have left their files.
DANGEROUS = (
    "fedmepd.experiments.pool._start",
    "fedmepd.cli.federation.start_kit",
    "fedmepd.cli.program.main",
    "fedmepd.storage.write_json",
    "fedmepd.storage.save_tensors",
    "nvflare.app_common.widgets.decomposer_reg.DecomposerRegister",
)


@pytest.mark.parametrize("name", [SERVER, "site-1"])
def test_what_our_jobs_are_made_of_is_allowed_and_nothing_else_is_new(name, kit):
    folder = kit(name)
    default = json.loads((folder / "local/resources.json.default").read_text())
    assert main(["kit", str(folder)]) == 0
    part = "server" if name == SERVER else "client"
    for config in ROOT.glob(f"jobs/*/app/config/config_fed_{part}.json"):
        for path in component_paths(json.loads(config.read_text())):
            assert is_allowed(folder, path), path
    for path in ("subprocess.Popen", "fedmepd_evil.Code", "os.system", *DANGEROUS):
        assert not is_allowed(folder, path), path
    resources = json.loads((folder / "local/resources.json").read_text())
    assert set(default["class_allow_list"]) < set(resources["class_allow_list"])
    added = set(resources["class_allow_list"]) - set(default["class_allow_list"])
    assert added == set(kits.ALLOWED[kits.kind_of(folder)])
    # The server lets sites into running jobs; all else is as FLARE made it.
    if name == SERVER:
        added = [one for one in resources["components"] if one not in default["components"]]
        assert [one["path"] for one in added] == ["fedmepd.flare.admission.SiteAdmission"]
        assert issubclass(SiteAdmission, FLComponent)
        resources["components"].remove(added[0])
    for key in default.keys() - {"class_allow_list"}:
        assert resources[key] == default[key]
    # Once more changes nothing.
    before = (folder / "local/resources.json").read_bytes()
    assert main(["kit", str(folder)]) == 0
    assert (folder / "local/resources.json").read_bytes() == before


@pytest.mark.parametrize("name", [SERVER, "site-1"])
def test_a_kit_allows_classes_and_never_a_whole_package(name, kit):
    # The libraries of the trackers need not be installed.
    for path in set(kits.ALLOWED[kits.kind_of(kit(name))]) - set(TRACKERS.values()):
        assert inspect.isclass(load_class(path)), path


def test_a_site_allows_nothing_that_is_for_a_server(kit):
    folder = kit("site-1")
    assert main(["kit", str(folder)]) == 0
    for path in ("fedmepd.flare.controller.FedMEPDController", *TRACKERS.values()):
        assert not is_allowed(folder, path), path


def test_a_kit_of_an_older_version_allows_less_once_it_is_set_up_again(kit):
    folder = kit("site-1")
    default = json.loads((folder / "local/resources.json.default").read_text())
    reporter = "nvflare.app_common.widgets.job_stats_reporter.JobStatsReporter"
    importer = "nvflare.app_common.widgets.decomposer_reg.DecomposerRegister"
    older = [*default["class_allow_list"], "fedmepd.", importer, reporter]
    (folder / "local/resources.json").write_text(
        json.dumps(default | {"class_allow_list": [*older, "hospital.own.Class"]})
    )
    assert is_allowed(folder, DANGEROUS[0])
    assert main(["kit", str(folder)]) == 0
    assert not any(is_allowed(folder, path) for path in DANGEROUS)
    # It adds durations and memory to the site's answers.
    assert not is_allowed(folder, reporter)
    assert is_allowed(folder, "hospital.own.Class")


def test_a_kit_of_a_project_that_streams_logs(kit):
    folder = kit("site-1")
    file = folder / "local/resources.json.default"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"allow_log_streaming": True}))
    assert main(["kit", str(folder)]) == 0
    assert json.loads((folder / "local/resources.json").read_text())["allow_log_streaming"] is False


OTHER_RIGHTS = ("byoc", "server-predeployed-flwr", "submit_job", "clone_job", "list_studies", "get_job_log")


def rights_of(file: Path, organisation: str = "hospital_1") -> dict[tuple[str, str], bool]:
    """What every role may do at an organisation's site or server, to a job of its own, as FLARE judges it."""
    policy, error = parse_policy_config(json.loads(file.read_text()), COMMAND_CATEGORIES)
    assert not error
    found = {}
    for name, role in ROLES.items():
        person = Person(name, ORGANISATIONS[role], role)
        for right in (*OTHER_RIGHTS, *COMMAND_CATEGORIES):
            found[role, right], _ = policy.evaluate(organisation, AuthzContext(right, person, person))
    return found


def test_only_the_project_admin_disables_sites_and_stops_the_server(provisioned):
    rights = rights_of(provisioned / SERVER / "local/authorization.json.default", "coordinating_centre")
    for command in ("disable_client", "shutdown", "restart"):
        assert {role for role in ROLES.values() if rights[role, command]} == {"project_admin"}
    assert rights["lead", "submit_job"] and rights["lead", "download_job"] and not rights["member", "submit_job"]


def test_files_of_a_kit_are_shown_to_the_sites_own_people(kit):
    folder = kit("site-1")
    before = rights_of(folder / "local/authorization.json.default")
    assert main(["kit", str(folder)]) == 0
    after = rights_of(folder / "local/authorization.json")
    assert before["project_admin", "cat"] and after["org_admin", "cat"]
    assert {what for what in before if before[what] != after[what]} == {
        ("project_admin", command) for command in ("cat", "grep", "head", "ls", "pwd", "tail")
    }


def test_code_is_refused_from_everybody_and_nothing_else_changes(kit):
    folder = kit("site-1")
    assert main(["kit", str(folder)]) == 0
    before = rights_of(folder / "local/authorization.json")
    assert main(["kit", str(folder), "--refuse-code"]) == 0
    after = rights_of(folder / "local/authorization.json")
    assert before["project_admin", "byoc"] and before["lead", "byoc"]
    assert {what for what in before if before[what] != after[what]} == {("project_admin", "byoc"), ("lead", "byoc")}


def test_withheld_encoders_are_those_that_were_named(kit):
    folder = kit("site-1")
    assert main(["kit", str(folder), "--withhold", "T1", "FLAIR"]) == 0
    policy = json.loads((folder / "local/privacy.json").read_text())
    [scope] = policy["scopes"]
    assert policy["default_scope"] == scope["name"]
    [entry] = scope["task_result_filters"]
    assert entry["path"] == f"{ExcludeVars.__module__}.{ExcludeVars.__name__}"
    state = FedMEPDNet(BRATS, BRATS.modalities, width=4).state_dict()
    dxo = ExcludeVars(**entry["args"]).process_dxo(DXO(DataKind.WEIGHTS, dict(state)), Shareable(), FLContext())
    # T1 is not T1ce.
    assert state.keys() - dxo.data.keys() == {key for key in state if re.match(r"encoders\.(FLAIR|T1)\.", key)}
    assert any(key.startswith("encoders.T1ce.") for key in dxo.data)


def test_another_policy_stays(kit, capsys):
    folder = kit("site-1")
    (folder / "local/privacy.json").write_text('{"scopes": []}')
    assert main(["kit", str(folder), "--withhold", "T1"]) == 2
    assert "holds another policy" in capsys.readouterr().err
    assert (folder / "local/privacy.json").read_text() == '{"scopes": []}'
    # Nothing is half done.
    assert not (folder / "local/resources.json").exists()


def test_more_encoders_are_withheld_and_none_is_sent_again_unasked(kit, capsys):
    folder = kit("site-1")
    assert main(["kit", str(folder), "--withhold", "T1"]) == 0
    assert main(["kit", str(folder), "--withhold", "T2"]) == 2
    assert "withholds T1 already: name all that shall stay (--withhold T1 T2), or delete" in capsys.readouterr().err
    assert main(["kit", str(folder), "--withhold", "T1", "T2"]) == 0
    assert "withheld encoders  T1, T2\n" in capsys.readouterr().out


def test_what_is_missing_in_a_kits_resources_comes_from_those_that_were_provisioned(kit):
    folder = kit("site-1")
    (folder / "local/resources.json").write_text('{"class_allow_list": ["hospital.own.Trainer"]}')
    assert main(["kit", str(folder)]) == 0
    made, before = (json.loads((folder / f"local/resources.json{end}").read_text()) for end in ("", ".default"))
    assert made["class_allow_list"][0] == "hospital.own.Trainer"
    same = before.keys() - {"class_allow_list", "allow_log_streaming"}
    assert before["components"] and {key: made[key] for key in same} == {key: before[key] for key in same}


def test_the_server_keeps_jobs_where_it_is_told(kit, tmp_path):
    folder = kit(SERVER)
    assert main(["kit", str(folder), "--jobs", str(tmp_path / "kept")]) == 0
    text = (folder / "local/resources.json").read_text()
    assert "/tmp/nvflare" not in text
    assert f'"uri_root": "{tmp_path}/kept/jobs"' in text and f'"root_dir": "{tmp_path}/kept/snapshots"' in text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lead@fedmepd.example.org", [], "is no kit of a FLARE server or site"),
        ("site-1", ["--jobs", "x"], "--jobs is for the server's kit"),
        (SERVER, ["--withhold", "T1"], "--withhold is for the kit of a site"),
        ("site-1", ["--withhold", "T1c"], "unknown modality 'T1c'"),
    ],
)
def test_what_is_refused(name, options, message, kit, capsys):
    folder = kit(name)
    before = sorted((folder / "local").iterdir())
    assert main(["kit", str(folder), *options]) == 2
    assert message in capsys.readouterr().err
    assert sorted((folder / "local").iterdir()) == before


def test_a_site_joins_in_one_step(kit, tmp_path, monkeypatch, capsys):
    """What the three commands do, each of them shown; a site that cannot reach its server is not started."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    folder, data = kit("site-1"), tmp_path / "data"
    started = tmp_path / "started"
    (folder / "startup/start.sh").write_text(f"#!/bin/sh\ntouch {started}\n")
    for name in ("a", "b", "c", "d"):
        write_case(data, name, BRATS.modalities)
        write_case(data / "fusion", f"f{name}", BRATS.modalities)
    command = ["join", str(folder), "--data", str(data), "--refuse-code", "--withhold", "T1", "--start"]
    assert main(command) == 1
    printed = capsys.readouterr()
    shown = [line for line in printed.out.splitlines() if line.startswith("$ ")]
    assert shown == [
        f"$ fedmepd data init {data}/fusion",
        f"$ fedmepd data init {data} --kit {folder}",
        f"$ fedmepd kit {folder} --refuse-code --withhold T1",
        f"$ fedmepd doctor {folder} --fusion",
    ]
    assert "put the errors right, then run `fedmepd join` again" in printed.err
    assert json.loads((folder / "local/fedmepd.json").read_text()) == {"data": str(data)}
    assert is_allowed(folder, "fedmepd.flare.executor.FedMEPDExecutor") and (folder / "local/privacy.json").is_file()
    assert "error    server       " in printed.out and not started.exists()


def test_what_starts_outlives_the_command(tmp_path, capsys):
    script, output = tmp_path / "start.sh", tmp_path / "output.txt"
    script.write_text(f"#!/bin/sh\necho here\nps -o sid= $$ > {tmp_path / 'session'}\n")
    script.chmod(0o755)
    start_kit(script, output)
    assert output.read_text() == "here\n"
    assert int((tmp_path / "session").read_text()) != os.getsid(0)
    assert f"what it prints is in {output}, to stop it: {tmp_path}/stop_fl.sh" in capsys.readouterr().out


def test_what_does_not_start_is_one_line(tmp_path):
    script = tmp_path / "start.sh"
    script.write_text("#!/bin/sh\necho broken\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(FedMEPDError, match="start.sh ended with status 3: .*output.txt says why"):
        start_kit(script, tmp_path / "output.txt")
    assert (tmp_path / "output.txt").read_text() == "broken\n"


def test_an_admins_kit_is_found_by_its_name_from_anywhere(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    name = "lead@fedmepd.example.org"
    folder = kit(name)
    assert main(["join", name]) == 0
    monkeypatch.chdir("/")
    assert admin_kit(name) == folder
    # FLARE's own commands take it without being told.
    assert resolve_startup_kit_dir() == str(folder)
    with pytest.raises(SettingsError, match="did you mean lead@fedmepd.example.org"):
        admin_kit("lead@fedmepd.exmaple.org")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lead@fedmepd.example.org", ["--data", "x"], "--data is for the kit of a site"),
        (SERVER, ["--data", "x"], "for a server that trains on fusion cases: `fedmepd data init FOLDER --kit KIT`"),
        (SERVER, ["--withhold", "T1"], "--withhold is for the kit of a site"),
        ("site-1", ["--jobs", "x"], "--jobs is for the kit of a server"),
        ("lead@fedmepd.example.org", ["--start"], "--start: "),
        ("lead@fedmepd.example.org", ["--refuse-code"], "is an admin's kit, which is only noted: leave the option out"),
        (".", [], "is no FLARE kit"),
    ],
)
def test_who_cannot_join_like_this(name, options, message, kit, tmp_path, capsys):
    folder = tmp_path if name == "." else kit(name)
    assert main(["join", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_task_without_its_modalities_is_refused(kit, capsys):
    folder = kit("site-1")
    assert main(["kit", str(folder), "--task", "prostate"]) == 2
    assert "--task: it says whose modalities --withhold names" in capsys.readouterr().err
    assert not (folder / "local/resources.json").exists()


def test_a_damaged_file_is_named(kit, capsys):
    folder = kit("site-1")
    (folder / "local/resources.json").write_text("{")
    assert main(["kit", str(folder)]) == 2
    assert f"{folder}/local/resources.json cannot be read as JSON" in capsys.readouterr().err


def test_the_fusion_site_of_the_examples_is_a_site_that_gets_the_job(provisioned, tmp_path):
    named = set()
    for page in DOCUMENTS:
        named |= set(re.findall(r"job export[^\n`]*--fusion-site ([\w-]+)", page.read_text()))
    assert named == {"site-1"} and (provisioned / "site-1").is_dir()
    arguments = ["--without-code", "--all-sites", "--fusion-site", *named]
    assert main(["job", "export", str(ROOT / "jobs/fedmepd_brats"), str(tmp_path / "my_job"), *arguments]) == 0
    assert job_settings(tmp_path / "my_job").fusion.site == "site-1"


def test_a_server_without_data_in_a_container(tmp_path):
    """As the README says: what the job's container needs no data folder for is left out."""
    content = yaml.safe_load((ROOT / "provisioning/containers/local/study_runtime.yaml").read_text())
    del content["studies"]["default"]["datasets"]
    (tmp_path / "study_runtime.yaml").write_text(yaml.safe_dump(content))
    study = load_study_runtime_file(str(tmp_path / "study_runtime.yaml"), "docker")["default"]
    assert study.datasets == [] and study.container_image


DOCUMENTS = [ROOT / "provisioning/README.md", ROOT / "docs/production.md"]


def commands() -> set[tuple[str, ...]]:
    """The commands of FLARE and ours in the documents, without their arguments."""
    found = set()
    for document in DOCUMENTS:
        for line in re.findall(r"(?:^    |`)((?:nvflare|fedmepd) [^`#\n]*)", document.read_text(), re.MULTILINE):
            words = [word for word in line.split() if re.fullmatch(r"[a-z0-9-]+", word)]
            options = sorted(set(re.findall(r"(?<=\s)--[a-z-]+", line)))
            depth = 3 if words[1] in ("system", "job", "cert", "deploy", "config", "data") else 2
            if line.startswith("nvflare deploy k8"):
                depth = 4
            found.add((*words[:depth], *options))
    return found


# In one process, since FLARE's command line takes long to import.
_HELP = """
import contextlib, io, json, sys
from fedmepd.cli import main as fedmepd
from nvflare.cli import main as nvflare
texts = []
for program, *words in json.loads(sys.argv[1]):
    sys.argv = [program, *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            nvflare() if program == "nvflare" else fedmepd(sys.argv[1:])
        except SystemExit as end:
            assert not end.code, (program, words, end.code)
    texts.append(text.getvalue())
print(json.dumps(texts))
"""


def test_the_documents_commands_exist():
    everything = commands()
    assert len(everything) > 12
    words_of = {command: tuple(word for word in command if not word.startswith("--")) for command in everything}
    names = sorted(set(words_of.values()))
    run = subprocess.run([sys.executable, "-c", _HELP, json.dumps(names)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    texts = dict(zip(names, json.loads(run.stdout.splitlines()[-1]), strict=True))
    for command, words in words_of.items():
        assert "usage: " in texts[words], " ".join(words)
        for option in command[len(words) :]:
            assert option in texts[words] or option == "--format", f"{' '.join(words)} has no {option}"


@pytest.mark.parametrize(
    ("runtime", "name", "launcher"),
    [
        ("docker", "site-1", "docker_launcher.ClientDockerJobLauncher"),
        ("k8s", SERVER, "k8s_launcher.ServerK8sJobLauncher"),
    ],
)
def test_a_kit_for_containers(runtime, name, launcher, kit, tmp_path, monkeypatch):
    """In the order of the README: FLARE's own settings for containers stay, ours are added."""
    for variable in ("FEDMEPD_DATA", "FEDMEPD_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    config = ROOT / f"provisioning/containers/{runtime}.yml"
    command = ["deploy", "prepare", str(kit(name)), "--output", str(tmp_path / "prepared"), "--config", str(config)]
    run = subprocess.run([sys.executable, "-m", "nvflare.cli", *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert main(["kit", str(tmp_path / "prepared"), *(["--refuse-code"] if name == "site-1" else [])]) == 0
    resources = json.loads((tmp_path / "prepared/local/resources.json").read_text())
    assert any(one["path"].endswith(launcher) for one in resources["components"])
    for path in kits.ALLOWED[kits.SERVER if name == SERVER else kits.SITE]:
        assert is_allowed(tmp_path / "prepared", path)
    starts = {"docker": "startup/start_docker.sh", "k8s": "helm_chart/Chart.yaml"}
    assert (tmp_path / "prepared" / starts[runtime]).is_file()
    # The job's container, where FLARE's launcher looks for it, and the cases where the site's settings say.
    local = ROOT / "provisioning/containers/local"
    study = load_study_runtime_file(str(local / "study_runtime.yaml"), runtime)["default"]
    assert study.container_image == yaml.safe_load(config.read_text())["parent"]["docker_image"]
    mounted = {mount.mount_path: mount.read_only for mount in study.datasets}
    assert mounted == {str(SiteSettings.load(local).data): True, str(SiteSettings.load(local).cache): False}
    image = (tmp_path / "prepared").rglob("start_docker.sh" if runtime == "docker" else "values.yaml")
    assert "registry.example.org/fedmepd" in next(image).read_text()


def test_a_kit_for_slurm(kit, tmp_path):
    """The template as it is, but for its names, is one that FLARE takes; the site's jobs then go to Slurm."""
    config, prepared = ROOT / "provisioning/slurm/slurm.yml", tmp_path / "prepared"
    command = ["deploy", "prepare", str(kit("site-1")), "--output", str(prepared), "--config", str(config)]
    run = subprocess.run([sys.executable, "-m", "nvflare.cli", *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert main(["kit", str(prepared), "--refuse-code"]) == 0
    resources = json.loads((prepared / "local/resources.json").read_text())
    [launcher] = [one for one in resources["components"] if "slurm" in one["path"]]
    asked = yaml.safe_load(config.read_text())["job_launcher"]
    assert launcher["args"]["sbatch_directives"] == asked["sbatch_directives"]
    assert launcher["args"]["python_path"] == asked["python_path"]
    assert is_allowed(prepared, "fedmepd.flare.executor.FedMEPDExecutor")
    assert (prepared / "startup/start_slurm.sh").is_file() and not (prepared / "startup/start.sh").exists()


def test_a_renewed_certificate_and_a_ninth_hospital(provisioned, tmp_path):
    """The others keep theirs, and the project keeps its root."""
    workspace = tmp_path / "workspace"
    shutil.copytree(provisioned.parents[1], workspace)
    state = workspace / "fedmepd/state/cert.json"
    content = json.loads(state.read_text())
    del content["site-1"]
    state.write_text(json.dumps(content))
    command = ["provision", "-p", str(provisioned.parents[2] / "project.yml"), "-w", str(workspace), "--force"]
    run = subprocess.run(
        [sys.executable, "-m", "nvflare.cli", *command, "--add-client", str(ROOT / "provisioning/ninth.yml")],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    before, after = workspace / "fedmepd/prod_00", workspace / "fedmepd/prod_01"

    def certificate(folder, file="client.crt"):
        return (folder / "startup" / file).read_bytes()

    assert certificate(before / "site-1") != certificate(after / "site-1")
    assert certificate(before / "site-2") == certificate(after / "site-2")
    root = x509.load_pem_x509_certificate(certificate(before / SERVER, "rootCA.pem"))
    for name in ("site-1", "site-9"):
        assert certificate(after / name, "rootCA.pem") == certificate(before / SERVER, "rootCA.pem")
        x509.load_pem_x509_certificate(certificate(after / name)).verify_directly_issued_by(root)
    assert json.loads((after / "site-9/local/resources.json.default").read_text())["allow_log_streaming"] is False


# In one process, as above.
_FLARE = """
import json, sys
from nvflare.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["nvflare", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def flare(folder: Path, *commands: list[str]) -> None:
    """Runs FLARE's commands one after the other in a folder."""
    run = subprocess.run(
        [sys.executable, "-c", _FLARE, json.dumps(commands)],
        cwd=folder,
        env=os.environ | {"HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"


def test_keys_that_never_travel(tmp_path):
    """Distributed provisioning: what goes to the project admin and back holds no private key; the kits are complete."""
    for page in ("project_profile", "server", "site", "admin", "lead"):
        shutil.copy(ROOT / f"provisioning/distributed/{page}.yml", tmp_path)
    profile = ["--profile", "project_profile.yml"]
    flare(tmp_path, ["cert", "init", *profile, "-o", "ca"])
    fingerprint = json.loads((tmp_path / "ca/ca.json").read_text())["rootCA_fingerprint"]
    names, commands = {}, []
    for entry in ("server", "site", "admin", "lead"):
        [participant] = yaml.safe_load((tmp_path / f"{entry}.yml").read_text())["participants"]
        name = names[entry] = participant["name"]
        kept = ["--request-dir", name, "--fingerprint", fingerprint, "-w", "workspace"]
        commands += [
            ["cert", "request", "-p", f"{entry}.yml"],
            ["cert", "approve", f"{name}/{name}.request.zip", "-c", "ca", *profile],
            ["package", f"{name}/{name}.signed.zip", *kept],
        ]
    flare(tmp_path, *commands)
    for entry, name in names.items():
        folder = tmp_path / name
        for travels in ("request", "signed"):
            with zipfile.ZipFile(folder / f"{name}.{travels}.zip") as content:
                assert not any(b"PRIVATE KEY" in content.read(one) for one in content.namelist())
        kit_folder = tmp_path / "workspace/fedmepd/prod_00" / name
        startup = kit_folder / "startup"
        own = "server" if entry == "server" else "client"
        root = x509.load_pem_x509_certificate((startup / "rootCA.pem").read_bytes())
        certificate = x509.load_pem_x509_certificate((startup / f"{own}.crt").read_bytes())
        certificate.verify_directly_issued_by(root)
        assert (startup / f"{own}.key").read_bytes() == (folder / f"{name}.key").read_bytes()
        if entry in ("server", "site"):
            assert main(["kit", str(kit_folder), *(["--refuse-code"] if entry == "site" else [])]) == 0
