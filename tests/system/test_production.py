"""Provisioned kits with certificates: jobs to their end, and who is refused."""

import json
import re
import shutil
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedmepd.data.phantom import case_names
from fedmepd.data.site import open_fusion_data
from fedmepd.evaluation import results
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.watching import COMPLETED
from fedmepd.job_settings import make_settings
from fedmepd.networks.build import build_network
from fedmepd.networks.encoder import Encoder
from fedmepd.privacy.accountant import epsilon
from fedmepd.privacy.ledger import releases_of_all
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from provisioning.distributed.root import hand_over
from tests.federation.drive import without_times
from tests.system.conftest import CASES, SITES, write_cases
from tests.system.production import ADMIN, LEAD, MEMBER, SERVER, Federation, provision, wait_for
from tests.system.simulator import ROOT, TINY, assert_same, board, in_process, weights

pytestmark = pytest.mark.system

OPEN, STRICT = ("site-1", "site-2", "site-4"), "site-3"
# They have a few cases each, and runs are compared bit by bit.
OPEN_VALUES = {"min_count": 1, "reproducible": "yes"}
# Sites 3 and 4 own what sites 3 and 4 of the paper do; T1ce belongs to sites 1 and 3, and to the fusion site.
MODALITIES = SITES | {STRICT: ("FLAIR", "T1ce"), "site-4": ("T1", "T2")}


@pytest.fixture(scope="module")
def federation(tmp_path_factory, cohort, cache):
    """A server and four sites: one refuses foreign code and withholds an encoder, the others are as provisioned."""
    made = Federation(tmp_path_factory.mktemp("production"), cache)
    data = made.folder / "data"
    for site in (STRICT, "site-4"):
        write_cases(data / site, site, CASES, modalities=MODALITIES[site])
    write_cases(data / "fusion", "fusion", CASES)
    agreed = {"site-1": {"cross_site": "test"}, STRICT: {"cross_site": "share"}}
    # Two hospitals have fusion cases beside their own; those of site 1 are the server's too.
    folders = {SERVER: cohort / "fusion", "site-1": cohort, "site-2": cohort / "site-2", STRICT: data}
    for name in (SERVER, *OPEN, STRICT):
        content = {"data": str(folders.get(name, data / name))} | OPEN_VALUES | agreed.get(name, {})
        (made.kit(name) / "local/fedmepd.json").write_text(json.dumps(content))
    made.fedmepd("kit", made.kit(SERVER), "--jobs", made.jobs)
    for site in OPEN[:2]:
        made.fedmepd("kit", made.kit(site))
    made.fedmepd("kit", made.kit(STRICT), "--refuse-code", "--withhold", "T1ce")
    try:
        made.start(SERVER, *OPEN, STRICT)
        wait_for(lambda: made.log(SERVER).count("joined. Sent token") >= 4, "all sites at the server")
        yield made
        made.flare("system", "shutdown", "all", "--force", by=ADMIN)
        wait_for(lambda: not made.processes(made.kits), "the end of the server and all sites")
    finally:
        made.end()


@pytest.fixture
def job(tmp_path):
    """Makes a tiny job for some sites: the repository's, with or without its folder ``custom``."""

    def make(name: str, sites: tuple[str, ...], **settings) -> Path:
        folder = tmp_path / name
        shutil.copytree(ROOT / "jobs/fedmepd_brats", folder)
        config = folder / "app/config/config_fed_server.json"
        content = json.loads(config.read_text())
        content["workflows"][0]["args"]["settings"] = TINY | settings
        config.write_text(json.dumps(content))
        meta = json.loads((folder / "meta.json").read_text()) | {"deploy_map": {"app": ["server", *sites]}}
        (folder / "meta.json").write_text(json.dumps(meta))
        return folder

    return make


def read_results(federation, job_id, out):
    federation.flare("job", "download", job_id, "-o", str(out))
    return results.read(results.find(out))


def test_a_job_of_three_sites(federation, job, tmp_path):
    job_id, status = federation.run_job(job("open", OPEN))
    assert status == COMPLETED
    found = read_results(federation, job_id, tmp_path / "results")
    assert found["status"] == "finished"
    assert {site["name"]: set(site["modalities"]) for site in found["sites"]} == {
        site: set(MODALITIES[site]) for site in OPEN
    }
    # Jobs and results are where the server's operator wants them.
    assert (federation.jobs / "jobs" / job_id / "meta").is_file()
    # Every site came with its own certificate, and nobody listens to the network.
    for site in OPEN:
        assert f"SSL {site}]" in federation.log(SERVER)
        assert (federation.kit(site) / job_id / "fedmepd/model_best.pt").is_file()
    addresses = {
        one.laddr.ip
        for process in federation.processes()
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    # What a site says of its data, the server has from nobody.
    texts = [path.read_text(errors="replace") for path in federation.kit(SERVER).glob("*log*")]
    texts += [path.read_text(errors="replace") for path in (tmp_path / "results").rglob("*log*") if path.is_file()]
    for site in OPEN:
        for secret in (str(federation.folder / "data"), case_names(site)[0]):
            assert not any(secret in text for text in texts)


@pytest.mark.slow
def test_without_code_and_without_an_encoder(federation, job, tmp_path):
    sites = (*OPEN[:2], STRICT)
    plain = tmp_path / "plain"
    with_matrix = job("code", sites, evaluation=TINY["evaluation"] | {"cross_site": True})
    federation.fedmepd("job", "export", with_matrix, plain, "--without-code")
    job_id, status = federation.run_job(plain)
    assert status == COMPLETED
    found = read_results(federation, job_id, tmp_path / "results")
    assert [site["name"] for site in found["sites"]] == list(sites)
    log = next((tmp_path / "results").glob("*/workspace/log.txt")).read_text()
    assert "round 1/2: 3 sites" in log and "round 2/2: 3 sites" in log and "is left out" not in log
    audit = (federation.kit(STRICT) / job_id / "audit.log").read_text()
    # In every round, and on the model that is handed to the other sites.
    assert audit.count("applied filter: ExcludeVars@site on task_result") == TINY["rounds"] + 1
    check_matrix(found)
    # Site 1 sends three encoders and the decoder, site 3 has two and sends one.
    encoder = 4 * sum(tensor.numel() for tensor in Encoder(TINY["network"]["width"]).state_dict().values())
    first, withheld = (
        board(tmp_path / "results", site).Scalars("4_cost/bytes_up")[0].value for site in ("site-1", STRICT)
    )
    assert first - withheld == 2 * encoder


def check_matrix(found):
    """Site 1 tests others' models, site 2 does nothing, site 3 shares its own without the encoder that it withholds."""
    cells = found["cross_site"]
    assert list(cells) == ["server", "site-1", "site-2", STRICT] and list(cells["server"]) == [
        *list(cells)[1:],
        "server",
    ]
    scored = {(model, site) for model, row in cells.items() for site, cell in row.items() if cell["test"]}
    own = {(name, name) for name in cells}
    assert scored - own == {("server", "site-1"), ("server", STRICT), (STRICT, "site-1"), (STRICT, "server")}
    assert cells[STRICT]["site-1"]["modalities"] == cells[STRICT]["server"]["modalities"] == ["FLAIR"]
    assert cells[STRICT][STRICT]["modalities"] == ["FLAIR", "T1ce"]
    assert cells["server"]["site-2"]["reason"] == "site-2 tests no model but its own"
    assert cells["site-1"][STRICT]["reason"] == "site-1 does not share its model"
    for site in found["sites"]:
        assert cells[site["name"]][site["name"]]["test"] == site["test"]


@pytest.fixture
def server_without_data(federation):
    """The server's operator has set up no data folder at all."""
    file = federation.kit(SERVER) / "local/fedmepd.json"
    kept = file.read_bytes()
    file.unlink()
    yield
    file.write_bytes(kept)


@pytest.fixture
def careful_site(federation):
    """Site 2 decides for itself, and leaves the number of cases and the secret as they are by default."""
    file = federation.kit("site-2") / "local/fedmepd.json"
    kept = json.loads(file.read_text())
    decided = {"limits": {"width": 4}, "allow": {"durations": False, "live": False}}
    file.write_text(json.dumps({"data": kept["data"]} | decided))
    yield federation.kit("site-2")
    file.write_text(json.dumps(kept))


@pytest.fixture
def sparing_site(federation, cohort, tmp_path):
    """Site 2 has a privacy budget for all jobs together."""
    data = tmp_path / "patients"
    shutil.copytree(cohort / "site-2", data)
    federation.fedmepd("data", "init", data)
    file = federation.kit("site-2") / "local/fedmepd.json"
    kept = file.read_text()
    file.write_text(json.dumps(OPEN_VALUES | {"data": str(data), "privacy": {"epsilon": 5, "delta": 1e-3}}))
    yield federation.kit("site-2")
    file.write_text(kept)


@pytest.mark.slow
def test_a_hospital_with_a_privacy_budget(federation, sparing_site, job, tmp_path):
    """A job that asks for no privacy trains with it; the next one gets what is left, with as much more noise."""
    found = []
    for name in ("spends", "comes-later"):
        job_id, status = federation.run_job(job(name, ("site-1", "site-2")))
        assert status == COMPLETED
        found.append(read_results(federation, job_id, tmp_path / f"{name}-run")["sites"])
        content = json.loads(federation.fedmepd("egress", sparing_site, "--job", job_id, "--json"))
        kinds = {item["kind"] for entry in content[0]["entries"] for item in entry["items"]}
        assert not kinds & {"losses", "validation_scores", "test_scores"}
    assert all(site["rounds_taken"] == [1, 2] for sites in found for site in sites)
    first, second = (sparing for _, sparing in found)
    assert first["privacy"]["budget"] == second["privacy"]["budget"] == 5
    assert 4 < first["privacy"]["epsilon"] <= 5 and second["privacy"]["noise"] > 10 * first["privacy"]["noise"]
    runs = releases_of_all(sparing_site / "fedmepd_privacy/privacy.json")
    assert len(runs) == 2 and epsilon([release for run in runs for release in run], 1e-3) <= 5


@pytest.mark.slow
def test_a_hospital_that_decides_for_itself(federation, careful_site, job, tmp_path):
    """No job goes beyond its limits, and what it keeps is neither in the results nor on its list of what has left."""
    job_id, status = federation.run_job(job("wide", ("site-1", "site-2"), network={"width": 8}))
    assert status != COMPLETED
    told = "network.width is 8 in the job, limits.width is 4 at this site"
    assert told in (careful_site / job_id / "error_log.txt").read_text()
    assert not list(careful_site.glob(f"{job_id}/fedmepd/state_*"))
    job_id, status = federation.run_job(job("fits", ("site-1", "site-2")))
    assert status == COMPLETED
    found = read_results(federation, job_id, tmp_path / "run")
    [open_site, careful] = found["sites"]
    assert open_site["test"] and open_site["validation"]
    assert careful["test"] is None and careful["validation"] is None and careful["rounds_taken"] == [1, 2]
    assert careful["untested"] == "the site has cases of fewer patients for it than its min_count"
    assert (careful_site / job_id / "fedmepd/secret.json").is_file()
    assert not (federation.kit("site-1") / job_id / "fedmepd/secret.json").exists()
    content = json.loads(federation.fedmepd("egress", careful_site, "--job", job_id, "--json"))
    [left] = content
    assert left["fault"] == "" and {entry["job"] for entry in left["entries"]} == {job_id}
    assert [entry["task"] for entry in left["entries"]] == ["prepare", "train", "train", "test"]
    kinds = {item["kind"] for entry in left["entries"] for item in entry["items"]}
    losses = {"losses"} if careful["cases"]["train"] >= 3 else set()
    assert kinds == {"profile", "updates", "counts", "memory", "message"} | losses
    # All that the server counted as arrived from the site is on the list, to the byte.
    updates = sum(item["bytes"] for entry in left["entries"] for item in entry["items"] if item["kind"] == "updates")
    assert updates == found["sites"][1]["work"]["bytes_up"] > 0
    assert all(entry["to"].endswith(f":{federation.port}") for entry in left["entries"])
    others = json.loads(federation.fedmepd("egress", federation.kit("site-1"), "--job", job_id, "--json"))
    assert {"validation_scores", "test_scores", "durations"} <= {
        item["kind"] for entry in others[0]["entries"] for item in entry["items"]
    }


def fetched(federation, job_id, place, out):
    """Downloads a job, and copies what server and sites keep beside it; returns the results and the server's log."""
    found = read_results(federation, job_id, out)
    # The server's state, which holds what single sites have sent, is not for everybody.
    assert not list(out.rglob("server_state.pt")) and list(out.rglob("global_*.pt"))
    shutil.copytree(federation.kit(SERVER) / "fedmepd_jobs" / job_id, out / "kept")
    for site in place:
        shutil.copytree(federation.kit(site) / job_id / "fedmepd", out / site)
    return found, next(out.glob("*/workspace/log.txt")).read_text()


@pytest.mark.slow
def test_the_fusion_site_at_a_hospital(federation, server_without_data, job, cohort, cache, tmp_path):
    """The same bits as in one process, and nothing of the fusion cases at the server but what may leave them."""
    # Two training cases are enough for an anchor here, so that anchors travel.
    changes = {"fusion": {"site": "site-1"}, "calibration": TINY["calibration"] | {"anchor_cases": 1}}
    job_id, status = federation.run_job(job("fusion", OPEN[:2], **changes))
    assert status == COMPLETED
    found, log = fetched(federation, job_id, OPEN[:2], tmp_path / "run")
    expected, weights_of_one = in_process(tmp_path / "once", TINY | changes, cohort, cache)
    assert_same(weights(tmp_path / "run", TINY["rounds"]), weights_of_one)
    timeless, timeless_of_one = without_times(found), without_times(expected)
    for key in ("mean", "server", "sites"):
        assert timeless[key] == timeless_of_one[key], key
    # The states of the fusion training, with its optimizer and class vectors, are at the hospital alone.
    assert {path.parts[-3] for path in (tmp_path / "run").rglob("fusion/state_*.pt")} == {"site-1"}
    assert found["fusion"]["site"] == "site-1"
    encoders_and_decoder = 4 * sum(value.numel() for value in weights_of_one["server"].values())
    # Rounds 0, 1 and 2 send all of it both ways; neither validation nor the final test sends it again.
    assert found["fusion"]["bytes_down"] == 3 * encoders_and_decoder
    # An anchor is one mean for each level: 4, 8, 16 and 32 channels; two at most for each class.
    anchors = (found["fusion"]["bytes_up"] - 3 * encoders_and_decoder) / (4 * (4 + 8 + 16 + 32))
    assert 3 <= anchors <= 3 * 2 * 4 and anchors == int(anchors)
    kept = [path.read_text(errors="replace") for path in federation.kit(SERVER).glob("*log*")]
    for secret in (str(cohort), case_names("fusion")[0]):
        assert not any(secret in text for text in [log, *kept])


@pytest.mark.slow
def test_a_fusion_site_that_withholds_an_encoder(federation, server_without_data, job, cache, tmp_path):
    """No site but the fusion site has T1ce, and its training of that encoder never leaves the hospital."""
    plain = tmp_path / "plain"
    withheld = job("fusion", ("site-2", STRICT), fusion={"site": STRICT})
    federation.fedmepd("job", "export", withheld, plain, "--without-code")
    job_id, status = federation.run_job(plain)
    assert status == COMPLETED
    found, log = fetched(federation, job_id, ("site-2", STRICT), tmp_path / "run")
    for text in ("round 1/2: 2 sites", "round 2/2: 2 sites"):
        assert text in log
    for text in ("refused", "is left out", "without fusion", "not validated", "not tested"):
        assert text not in log
    assert found["server"]["rounds_missed"] == [] and found["server"]["validation"]["round"] == TINY["rounds"]
    settings = make_settings("phantom", TINY | {"fusion": {"site": STRICT}})
    started = build_network(settings).start(settings.seed).state_dict()
    at_server = load_tensors(next((tmp_path / "run").rglob("server_state.pt")))["method"]["weights"]
    [state] = (tmp_path / "run" / STRICT / "fusion").glob(f"state_{TINY['rounds']:05d}.pt")
    at_hospital = load_tensors(state)["network"]
    for key, value in at_server.items():
        if key.startswith("encoders.T1ce."):
            assert torch.equal(value, started[key]), key
            assert not torch.equal(value, at_hospital[key]), key
        else:
            assert torch.equal(value, at_hospital[key]), key
    # So the hospital gets that encoder again in every task, and what it scores is the model that the server has.
    site_settings = SiteSettings(data=federation.folder / "data", cache=cache, device="cpu")
    again = FusionSite(settings, open_fusion_data(STRICT, settings, site_settings), tmp_path / "x", torch.device("cpu"))
    validation = again.validate(at_server, TINY["rounds"], lambda: False)
    assert found["server"]["validation"]["mdsc"] == validation["mdsc"]


def test_a_job_with_code_where_code_is_refused(federation, job):
    job_id, status = federation.run_job(job("code", (STRICT,)))
    assert status != COMPLETED
    line = f"{STRICT}: NVFLARE_ERROR: BYOC not permitted"
    assert line in federation.log(SERVER) and line in json.dumps(federation.flare("job", "meta", job_id))
    assert not (federation.kit(STRICT) / job_id / "fedmepd").exists()


def attacks(mark: Path) -> dict[str, dict]:
    """Components of a job without code that start a program, here `touch`."""
    touch = ["touch", str(mark)]
    # A function of the installed package, with an object that FLARE makes for it.
    folder = {"path": "fedmepd.experiments.run_folder.RunFolder", "args": {"path": "fedmepd.x"}}
    of_package = {"folder": folder, "command": ["sh", "-c", f"touch {mark}"], "environment": {}}
    return {
        "subprocess.Popen": {"args": touch},
        "fedmepd.experiments.pool._start": of_package,
        # It imports the modules of what it is told, also of files that earlier jobs have left in the kit.
        "nvflare.app_common.widgets.decomposer_reg.DecomposerRegister": {"classes": ["this.s"]},
    }


@pytest.mark.slow
def test_a_class_outside_the_list(federation, job, tmp_path):
    mark = tmp_path / "mark"
    for number, (path, arguments) in enumerate(attacks(mark).items()):
        asking, plain = job(f"asking-{number}", (STRICT,)), tmp_path / f"plain-{number}"
        config = asking / "app/config/config_fed_client.json"
        content = json.loads(config.read_text())
        content["components"].append({"id": "x", "path": path, "args": arguments})
        config.write_text(json.dumps(content))
        federation.fedmepd("job", "export", asking, plain, "--without-code")
        job_id, status = federation.run_job(plain)
        assert status != COMPLETED and not mark.exists()
        said = (federation.kit(STRICT) / job_id / "error_log.txt").read_text()
        assert re.search(rf"Component '{re.escape(path)}' at config path 'components\.#\d+' is not in allow_list", said)
        # FLARE would send the site's error log to the server; the kit says no.
        kept = federation.jobs / "jobs" / job_id
        assert (kept / "meta").is_file() and not list(kept.glob("ERRORLOG*"))


@pytest.mark.slow
def test_hospitals_join_a_running_job_and_another_is_removed(federation, job):
    """Nobody but the newcomers does anything; who is removed gets nothing more and cannot come back."""
    folder = job("open", OPEN)
    meta = json.loads((folder / "meta.json").read_text()) | {"deploy_map": {"app": ["@ALL"]}}
    (folder / "meta.json").write_text(json.dumps(meta))
    config = folder / "app/config/config_fed_server.json"
    content = json.loads(config.read_text())
    content["workflows"][0]["args"]["settings"] |= {"rounds": 300}
    config.write_text(json.dumps(content))
    job_id = federation.flare("job", "submit", "-j", str(folder))["job_id"]
    server_log = federation.kit(SERVER) / job_id / "log.txt"

    def said(text):
        return server_log.is_file() and text in server_log.read_text()

    try:
        wait_for(lambda: said("round 1/300: 3 sites"), "the first round")
        for kit in (added_site(federation), site_with_its_own_key(federation)):
            write_cases(federation.folder / "data" / kit.name, "site-1", CASES)
            (kit / "local/fedmepd.json").write_text(json.dumps({"data": str(federation.folder / "data" / kit.name)}))
            federation.start_kit(kit)
        wait_for(lambda: said("site-9: joins in round ") and said("site-10: joins in round "), "the newcomers")
        wait_for(lambda: said(": 5 sites, mean loss"), "a round with the newcomers")
        federation.flare("system", "disable-client", "site-4", "--force", by=ADMIN)
        wait_for(lambda: f"site-4: disabled, gets no more of job {job_id}" in federation.log(SERVER), "the removal")
        wait_for(lambda: said("4 sites (without site-4)"), "a round without the removed site")
        # Its machine is restarted, say, or somebody has its kit.
        log = federation.run_client(federation.kit("site-4"), "site-4")
        wait_for(lambda: "Client 'site-4' is disabled" in log.read_text(), "what the site is told")
        assert "Reject disabled client registration: site-4" in federation.log(SERVER)
        federation.flare("system", "enable-client", "site-4", "--force", by=ADMIN)
        # Its own client has kept trying.
        wait_for(lambda: f"site-4: let into job {job_id}" in federation.log(SERVER), "the site that is enabled again")
    finally:
        federation.flare("job", "abort", job_id, "--force", by=ADMIN)


def added_site(federation) -> Path:
    """Provisions a ninth hospital as provisioning/README.md says; returns its kit."""
    federation.nvflare(
        "provision -p project.yml -w workspace --force --add-client", str(ROOT / "provisioning/ninth.yml")
    )
    return federation.kits.with_name("prod_01") / "site-9"


def site_with_its_own_key(federation) -> Path:
    """The same for a tenth that keeps its private key; returns its kit."""
    templates = ROOT / "provisioning/distributed"
    profile = (templates / "project_profile.yml").read_text()
    profile = profile.replace("fl.fedmepd.example.org", SERVER).replace("8002", str(federation.port))
    (federation.folder / "profile.yml").write_text(profile)
    (federation.folder / "site.yml").write_text((templates / "site.yml").read_text().replace("site-1", "site-10"))
    fingerprint = hand_over(federation.kits.parent, federation.folder / "ca")
    federation.nvflare("cert request -p site.yml")
    federation.nvflare("cert approve site-10/site-10.request.zip -c ca --profile profile.yml")
    federation.nvflare("package site-10/site-10.signed.zip --request-dir site-10 -w own --fingerprint", fingerprint)
    kit = federation.folder / "own/fedmepd/prod_00/site-10"
    own = (federation.folder / "site-10/site-10.key").read_bytes()
    assert (kit / "startup/client.key").read_bytes() == own
    assert own.decode() not in (federation.kits.parent / "state/cert.json").read_text()
    return kit


def test_a_member_submits_a_job(federation, job):
    def jobs():
        # Not their status: the last test's job may just be ending.
        return [job["job_id"] for job in federation.flare("job", "list", by=ADMIN)]

    before = jobs()
    with pytest.raises(FlareError, match=f"user '{MEMBER}' is not authorized for 'submit_job'"):
        federation.flare("job", "submit", "-j", str(job("job", OPEN)), by=MEMBER)
    assert jobs() == before


@pytest.fixture(scope="module")
def stranger(federation):
    """The kits of another project, whose server seems to be ours."""
    return provision(federation.folder / "other", federation.environment, name=SERVER, fed_learn_port=federation.port)


def test_a_site_of_another_project(federation, stranger):
    log = federation.run_client(stranger / "site-1", "site-1")
    wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), "the refusal")


def test_a_site_under_another_name(federation):
    federation.run_client(federation.kit("site-2"), "site-1")
    line = "authenticated as 'site-2' but claimed endpoint 'site-1' requires identity 'site-1'"
    wait_for(lambda: line in federation.log(SERVER), "the refusal")


@pytest.mark.parametrize(("security", "how"), [("tls", "without certificate"), ("clear", "without TLS")])
def test_a_site_that_does_not_show_a_certificate(security, how, federation, tmp_path):
    """The server closes the connection before FLARE hears of it: the line is in the site's log."""
    kit = tmp_path / "site-5"
    shutil.copytree(federation.kit("site-5"), kit)
    file = kit / "startup/fed_client.json"
    content = json.loads(file.read_text())
    content["client"]["connection_security"] = security
    file.write_text(json.dumps(content))
    log = federation.run_client(kit, "site-5")
    line = f"Connector [CH00001 ACTIVE http://localhost:{federation.port}] failed with exception"
    wait_for(lambda: line in log.read_text(), f"the refusal of a site {how}")
    assert "site-5" not in federation.log(SERVER)


def ask(federation, certificate=None, plain=False):
    """Returns what the server answers to somebody who connects and asks."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection((SERVER, federation.port), timeout=30) as connection:
        try:
            if not plain:
                context = ssl.create_default_context(cafile=federation.kit(LEAD) / "startup/rootCA.pem")
                if certificate:
                    context.load_cert_chain(certificate / "startup/client.crt", certificate / "startup/client.key")
                connection = context.wrap_socket(connection, server_hostname=SERVER)
            connection.sendall(request)
            return connection.recv(100)
        except OSError:
            return b""


def test_who_gets_an_answer_from_the_server(federation, stranger, tmp_path):
    assert ask(federation, federation.kit("site-1")).startswith(b"HTTP/1.1 ")
    assert ask(federation) == b""
    assert ask(federation, stranger / "site-1") == b""
    assert ask(federation, plain=True) == b""
    assert ask(federation, reissued(federation, tmp_path / "new", days=1)).startswith(b"HTTP/1.1 ")
    assert ask(federation, reissued(federation, tmp_path / "expired", days=-1)) == b""


def reissued(federation, kit: Path, days: int) -> Path:
    """Copies the kit of site 1 with a certificate that is valid until so many days from now."""
    shutil.copytree(federation.kit("site-1"), kit)
    state = json.loads((federation.kits.parent / "state/cert.json").read_text())
    key = serialization.load_pem_private_key(state["root_pri_key"].encode(), None)
    old = x509.load_pem_x509_certificate((kit / "startup/client.crt").read_bytes())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(key, hashes.SHA256())
    (kit / "startup/client.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return kit
