from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedmepd.errors import Aborted, CheckpointError, FedMEPDError
from fedmepd.federation.exchange import Payload, SiteProfile, Update
from fedmepd.federation.kept_states import KeptStates
from fedmepd.federation.site import FederationSite
from fedmepd.methods.fedmepd import FedMEPDAtSite
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import describe, load_model, trained_with
from tests.federation.drive import CPU, Clock, make, make_server, make_site, play, same, site_state
from tests.tiny import COUNTS, SITES, never, settings

NAME = "site-1"
# A convolution without bias, and the one with the classes as filters.
LAYER, HEAD = "decoder.levels.2.fusion.fuse.1.conv", "decoder.classify"


@pytest.fixture(scope="module")
def payloads(tiny, tmp_path_factory) -> dict[int, Payload]:
    """What a server might send in rounds 1 to 3; from round 2 on two filters are personal."""
    server = make_server(tiny, settings(), tmp_path_factory.mktemp("server"))
    server.register(SiteProfile(NAME, SITES[NAME], COUNTS[NAME], "folder"))
    server.start(never)
    server.begin_round()
    tensors = server.payload(NAME).tensors
    made = {}
    for number in (1, 2, 3):
        sent = {key: value.clone() for key, value in tensors.items()}
        for key in sent:
            if key.startswith(("encoders.", "decoder.", "anchors.")):
                sent[key] += 0.001 * (number - 1)
        if number > 1:
            for layer, keys in ((LAYER, [f"{LAYER}.weight"]), (HEAD, [f"{HEAD}.weight", f"{HEAD}.bias"])):
                shared = torch.ones(len(sent[f"patience.{layer}"]), dtype=torch.bool)
                shared[1] = False
                sent[f"patience.{layer}"][1] = 0
                for key in keys:
                    sent[key] = sent[key][shared]
        made[number] = Payload(number, sent)
    return made


def copy(payload: Payload) -> Payload:
    return Payload(payload.round, {key: value.clone() for key, value in payload.tensors.items()})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def train(site: FederationSite, payload: Payload) -> Update:
    return site.train(copy(payload), never)


def same_update(first: Update, second: Update) -> bool:
    return same(first.tensors, second.tensors) and first.report["losses"] == second.report["losses"]


def test_profile(tiny, tmp_path) -> None:
    profile = make_site(tiny, settings(), tmp_path, NAME).profile()
    assert profile == SiteProfile(NAME, ("FLAIR", "T1ce"), COUNTS[NAME], "folder")
    assert SiteProfile.from_json(profile.to_json()) == profile


def test_no_training_case(tiny, tmp_path) -> None:
    data = replace(tiny.data(NAME), train=[])
    with pytest.raises(FedMEPDError, match="site-1: no training case: expected at least one labelled case"):
        FederationSite(NAME, settings(), data, tmp_path, CPU).profile()
    # A method in which sites do not train does not need any.
    assert FederationSite(NAME, settings(method="fusion_only"), data, tmp_path, CPU).profile().cases["train"] == 0


def test_one_object_and_one_for_each_round_give_the_same_bits(tiny, tmp_path, payloads) -> None:
    one = make_site(tiny, settings(), tmp_path / "one", NAME)
    for payload in payloads.values():
        expected = train(one, payload)
        # Other work of the process in between must not count.
        torch.rand(3)
        found = train(make_site(tiny, settings(), tmp_path / "many", NAME), payload)
        assert same_update(found, expected)
    assert same(site_state(tmp_path / "many", NAME, 3), site_state(tmp_path / "one", NAME, 3))


def test_the_last_round_can_be_asked_for_again(tiny, tmp_path, payloads) -> None:
    site = make_site(tiny, settings(), tmp_path, NAME)
    first = train(site, payloads[1])
    assert same_update(train(site, payloads[1]), first)
    second = train(site, payloads[2])
    kept = site_state(tmp_path, NAME, 2)
    assert same_update(train(site, payloads[2]), second)
    assert same_update(train(make_site(tiny, settings(), tmp_path, NAME), payloads[2]), second)
    assert same(site_state(tmp_path, NAME, 2), kept)
    train(site, payloads[3])
    # The states of the last two rounds are kept, no more.
    assert sorted(path.name for path in (tmp_path / NAME).glob("state_*")) == ["state_00002.pt", "state_00003.pt"]


def test_other_seed_gives_another_update(tiny, tmp_path, payloads) -> None:
    first = train(make_site(tiny, settings(), tmp_path / "a", NAME), payloads[1])
    second = train(make_site(tiny, settings(seed=1), tmp_path / "b", NAME), payloads[1])
    assert not same_update(first, second)


def test_abort_leaves_the_state_of_the_round_before(tiny, tmp_path, payloads) -> None:
    site = make_site(tiny, settings(), tmp_path, NAME)
    train(site, payloads[1])
    expected = train(site, payloads[2])
    undone = make_site(tiny, settings(), tmp_path / "aborted", NAME)
    train(undone, payloads[1])
    before = files(tmp_path / "aborted" / NAME)
    asked: list[int] = []

    def after_a_step() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Aborted):
        undone.train(copy(payloads[2]), after_a_step)
    after = files(tmp_path / "aborted" / NAME)
    # That the round was asked for is counted: nobody knows what had left.
    counts = [next(of.pop(key) for key in list(of) if Path(key).name == "asked.json") for of in (before, after)]
    assert counts[0] != counts[1] and after == before
    # What was half done is gone from memory, too.
    assert same_update(train(undone, payloads[2]), expected)


def test_shared_filters_are_replaced_and_personal_ones_stay(tiny, tmp_path, payloads) -> None:
    of = settings()
    site = make_site(tiny, of, tmp_path, NAME)
    train(site, payloads[1])
    before = site_state(tmp_path, NAME, 1)["network"]
    seen: dict[str, torch.Tensor] = {}

    def look() -> bool:
        """Asked before every step: the first time, what came has been taken in and nothing is trained."""
        if not seen:
            seen.update({key: value.clone() for key, value in site._network.state_dict().items()})
        return False

    update = site.train(copy(payloads[2]), look)
    after = site_state(tmp_path, NAME, 2)["network"]
    sent = payloads[2].tensors
    for key, value in seen.items():
        personal = [False] * len(value)
        if key.startswith((LAYER, HEAD)):
            personal[1] = True
        if key not in sent:
            assert key.startswith(("auxiliary.", "calibration."))
            assert torch.equal(value, before[key]) and key not in update.tensors
            continue
        returned = iter(range(len(value)))
        for filter_number, own in enumerate(personal):
            if own:
                assert torch.equal(value[filter_number], before[key][filter_number])
                continue
            row = next(returned)
            assert torch.equal(value[filter_number], sent[key][row])
            # The update is the change of what came from the server: W_i after training minus before it.
            change = after[key][filter_number] - sent[key][row]
            torch.testing.assert_close(update.tensors[key][row], change, rtol=0, atol=1e-7)
        assert update.tensors[key].shape == sent[key].shape
    assert update.tensors.keys() == {key for key in sent if key.startswith(("encoders.", "decoder."))}
    # Personal filters learn, too.
    assert not torch.equal(after[f"{LAYER}.weight"][1], before[f"{LAYER}.weight"][1])


def test_trains_with_the_anchors(tiny, tmp_path, payloads) -> None:
    site = make_site(tiny, settings(), tmp_path, NAME)
    train(site, payloads[1])
    state = site_state(tmp_path, NAME, 1)
    assert {level: rows.tolist() for level, rows in state["anchors"].items()} == {
        level: payloads[1].tensors[f"anchors.{level}"].tolist() for level in (1, 2, 3, 4)
    }
    start = FedMEPDNet(BRATS, SITES[NAME], 4, calibration={"residual": True}).start(0).state_dict()
    assert all(not torch.equal(state["network"][key], start[key]) for key in start if "calibration" in key)
    without = settings(calibration={"enabled": False})
    site = make_site(tiny, without, tmp_path / "without", NAME)
    tensors = {key: value for key, value in payloads[1].tensors.items() if not key.startswith("anchors.")}
    train(site, Payload(1, tensors))
    assert not [key for key in site_state(tmp_path / "without", NAME, 1)["network"] if "calibration" in key]


def test_report_and_models(tiny, tmp_path, payloads) -> None:
    of = settings()
    site = make_site(tiny, of, tmp_path, NAME)
    reports = {number: train(site, payload).report for number, payload in payloads.items()}
    assert [report["cases"] for report in reports.values()] == [3, 3, 3]
    assert [report["steps"] for report in reports.values()] == [2, 2, 2]
    # Every second round is validated, and the last one.
    assert [report["validation"] and report["validation"]["round"] for report in reports.values()] == [None, 2, 3]
    for report in reports.values():
        losses = report["losses"]
        assert losses["total"] == pytest.approx(losses["segmentation"] + losses["regions"] + losses["auxiliary"])
    best = max((2, 3), key=lambda number: (reports[number]["validation"]["mdsc"], -number))
    assert site.test(Payload(3), never)["selected_round"] == best
    last = load_model(tmp_path / NAME / "model_last.pt")
    state = site_state(tmp_path, NAME, 3)
    assert same(dict(last.state_dict()), dict(state["network"])) and same(last.anchors, state["anchors"])
    # Weights and anchors of a model are of the same round.
    for name, number in (("model_best.pt", best), ("model_last.pt", 3)):
        anchors = load_model(tmp_path / NAME / name).anchors
        assert anchors and same(
            anchors, {level: payloads[number].tensors[f"anchors.{level}"].float() for level in anchors}
        )
    assert site.stats()["phase"] == "finished"


def test_seconds_of_a_round(tiny, tmp_path, payloads, monkeypatch) -> None:
    """Loading the network takes 1 s here, an epoch 8, a validation 4, and writing to disk 2."""
    clock = Clock()

    for owner, name, seconds in [
        (FedMEPDAtSite, "network", 1),
        (FederationSite, "_train_round", 8),
        (FederationSite, "_validate", 4),
        (KeptStates, "save", 2),
    ]:
        monkeypatch.setattr(owner, name, clock.slowly(seconds, getattr(owner, name)))
    site = FederationSite(NAME, settings(), tiny.data(NAME), tmp_path, CPU, clock=clock)
    reports = [train(site, payload).report for payload in payloads.values()]
    # Every second round is validated, and the last one.
    assert [report["train_seconds"] for report in reports] == [1 + 8, 8, 8]
    assert [report["validation_seconds"] for report in reports] == [0, 4, 4]
    assert [report["seconds"] for report in reports] == [9 + 2, 12 + 2, 12 + 2]


def test_without_validation_cases_the_last_model_is_tested(tiny, tmp_path, payloads) -> None:
    data = replace(tiny.data(NAME), validation=[])
    site = FederationSite(NAME, settings(rounds=1), data, tmp_path, CPU)
    assert train(site, payloads[1]).report["validation"] is None
    report = site.test(Payload(1), never)
    assert report["selected_round"] == 1 and set(report["test"]) == {
        *("dice", "mdsc", "empty", "hd95_mm", "nsd", "lesions")
    }
    data = replace(data, test=[])
    assert FederationSite(NAME, settings(rounds=1), data, tmp_path, CPU).test(Payload(1), never)["test"] is None


def test_no_model_to_test(tiny, tmp_path) -> None:
    with pytest.raises(FedMEPDError, match="no model to test: no round of this run is finished"):
        make_site(tiny, settings(), tmp_path, NAME).test(Payload(3), never)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "encoders.FLAIR.levels.1.0.conv.weight",
            torch.zeros(8, 1, 3, 3, 3),
            r"encoders.FLAIR.levels.1.0.conv.weight of shape \(8, 1, 3, 3, 3\), expected \(4, 1, 3, 3, 3\)",
        ),
        ("encoders.T2.levels.1.0.conv.weight", torch.zeros(4, 1, 3, 3, 3), ".*expected no such weight"),
        (f"{HEAD}.bias", torch.zeros(3), rf"{HEAD}.bias of shape \(3,\), expected \(4,\)"),
    ],
)
def test_payload_that_does_not_fit(key: str, value: torch.Tensor, text: str, tiny, tmp_path, payloads) -> None:
    payload = copy(payloads[1])
    payload.tensors[key] = value
    site = make_site(tiny, settings(), tmp_path, NAME)
    with pytest.raises(FedMEPDError, match=f"received {text}.*different settings or versions"):
        site.train(payload, never)
    assert not list(Path(tmp_path).rglob("state_*"))
    expected = train(make_site(tiny, settings(), tmp_path / "fresh", NAME), payloads[1])
    assert same_update(train(site, payloads[1]), expected)


@pytest.mark.parametrize(
    "changed", [{"network": {"width": 8}}, {"network": {"shared_encoder": True}}, {"calibration": {"enabled": False}}]
)
def test_state_of_other_settings(changed: dict, tiny, tmp_path, payloads) -> None:
    train(make_site(tiny, settings(), tmp_path, NAME), payloads[1])
    site = make_site(tiny, settings(**changed), tmp_path, NAME)
    with pytest.raises(CheckpointError, match="state_00001.pt.*written with other settings; use another run name"):
        site.train(copy(payloads[2]), never)


def test_damaged_state(tiny, tmp_path, payloads) -> None:
    train(make_site(tiny, settings(), tmp_path, NAME), payloads[1])
    path = tmp_path / NAME / "state_00001.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="state_00001.pt.*damaged"):
        make_site(tiny, settings(), tmp_path, NAME).train(copy(payloads[2]), never)


def test_state_that_cannot_be_written(tiny, tmp_path, payloads, monkeypatch) -> None:
    site = make_site(tiny, settings(), tmp_path, NAME)
    train(site, payloads[1])
    before = files(tmp_path / NAME)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(FedMEPDError, match="cannot write .*site-1.*No space left on device.*unchanged"):
            site.train(copy(payloads[2]), never)
    assert files(tmp_path / NAME) == before
    train(site, payloads[2])


def test_the_best_model_says_how_it_was_validated(tiny, tmp_path) -> None:
    of = settings(rounds=1, evaluation={"window": 16, "overlap": 0.25, "every": 1}, data={"clip_percent": 0.5})
    server, sites = make(tiny, of, tmp_path)
    play(server, sites, 1)
    for path in (tmp_path / "site-1/model_best.pt", tmp_path / "server/global_best.pt"):
        about = describe(path)["about"]
        assert {key: about[key] for key in ("window", "overlap", "clip_percent", "round", "method")} == {
            "window": 16,
            "overlap": 0.25,
            "clip_percent": 0.5,
            "round": 1,
            "method": "fedmepd",
        }
    for owner, path in (("site-1", "site-1/model_best.pt"), ("fusion", "server/global_best.pt")):
        data, about = tiny.data(owner, of), describe(tmp_path / path)["about"]
        assert trained_with(about) == data.images and about["phantoms"] is False
        assert list(about["intensities"]) == list(data.modalities)
