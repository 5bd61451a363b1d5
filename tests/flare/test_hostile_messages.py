"""Whatever a member of the federation sends: it is refused with a reason, and nobody else is harmed."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from fedmepd.errors import FedMEPDError, UpdateRefused
from fedmepd.flare import translation
from fedmepd.job_settings import make_settings
from fedmepd.tasks.brats import BRATS

IDENTITY = "0123456789abcdef" * 2
SETTINGS = make_settings("phantom", {"rounds": 2})
DEEP = [[[[["x"]]]]]
LINE = "\x1b[2J\nround 9: all is well"
JUNK = (None, True, -1, 10**400, 1.7e308, float("nan"), "", LINE, b"\xff", [], {}, DEEP, {1: 2})
KINDS = (DataKind.WEIGHTS, DataKind.APP_DEFINED)
READERS: dict[str, Callable] = {
    "profile": lambda message: translation.profile_of("site-2", message, BRATS),
    "start-up": lambda message: translation.start_up_of("site-2", message),
    "update": lambda message: translation.update_of("site-2", message),
    "model": translation.model_of,
    "fusion": lambda message: translation.fusion_reply_of("site-2", message),
    # What a server sends.
    "payload": translation.payload_of,
    "fusion task": translation.fusion_task_of,
}


def messages() -> list[Shareable]:
    """Messages that no honest site sends: of each field of a DXO, and of what a DXO lies in."""
    found = [Shareable(), make_reply(ReturnCode.OK)]
    for junk in JUNK:
        message = Shareable()
        message.set_header("content_type", junk)
        found.append(message)
        message = DXO(DataKind.WEIGHTS, {"a": torch.zeros(1)}).to_shareable()
        message["DXO"] = junk
        found.append(message)
    for kind, field, junk in itertools.product(KINDS, ("kind", "data", "meta"), JUNK):
        message = DXO(kind, {"a": torch.zeros(1)}, {"round": 1, "report": {}}).to_shareable()
        message["DXO"][field] = junk
        found.append(message)
    for junk in JUNK:
        for key in ("round", "report", "modalities", "start_up", "version", "digests", "relative"):
            meta = {"round": 1, "report": {}, "modalities": ["T1"], "version": "", "digests": {}, "relative": True}
            found.append(DXO(DataKind.WEIGHTS, {"a": torch.zeros(1)}, meta | {key: junk}).to_shareable())
        found.append(DXO(DataKind.WEIGHTS, {"a": junk}, {"round": 1, "report": {}}).to_shareable())
    for key in (1, None, ("a",), "\x00", "a" * 10**5):
        found.append(DXO(DataKind.WEIGHTS, {key: torch.zeros(1)}, {"round": 1, "report": {}}).to_shareable())
    return found


@pytest.mark.parametrize("name", READERS)
def test_refused_or_read_and_never_an_error_of_ours(name: str) -> None:
    read = READERS[name]
    for message in messages():
        try:
            read(message)
        except UpdateRefused as error:
            assert str(error).isprintable() and len(str(error)) <= 1000


def test_names_of_tensors_are_texts() -> None:
    for key in (1, None, ("a",), "\x00", "a" * 10**5):
        message = DXO(DataKind.WEIGHTS, {key: torch.zeros(1)}, {"round": 1, "report": {}}).to_shareable()
        with pytest.raises(UpdateRefused):
            translation.update_of("site-2", message)


@pytest.mark.parametrize("junk", [junk for junk in JUNK if not isinstance(junk, bool)], ids=repr)
def test_bytes_that_nobody_can_have_sent_count_as_none(junk: object) -> None:
    """All rounds' are added, and become figures: a number of 400 digits ended the run."""
    meta = {"round": 1, "report": {}, "bytes": junk, "bytes_down": 5}
    assert translation.bytes_of(DXO(DataKind.WEIGHTS, {}, meta).to_shareable()) == (0, 5)


def test_reason_of_a_site_is_cut_and_printable() -> None:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION, {"fedmepd.reason": "\x1b[2J\nround 9: fine\u202e" + "x" * 10**6})
    reason = translation.failure_of(reply)
    assert reason.isprintable() and len(reason) < 250 and reason.startswith(r"\x1b[2J\nround 9: fine\u202exxx")


@pytest.mark.parametrize(
    "identity",
    ["", "..", "../..", "/etc/cron.d", "0" * 31, "0" * 33, "0" * 31 + "\n", "0" * 32 + "\n", "A" * 32, "0/" * 16],
)
def test_identity_of_a_run_is_refused_at_the_site(identity: str) -> None:
    """It becomes the name of a folder there."""
    message = translation.task(translation.Run(identity, SETTINGS))
    with pytest.raises(FedMEPDError, match="32 hexadecimal digits") as refused:
        translation.run_of(message)
    assert "32 hexadecimal digits" in refused.value.public


def test_identity_that_is_one() -> None:
    assert translation.run_of(translation.task(translation.Run(IDENTITY, SETTINGS))).identity == IDENTITY


@pytest.mark.parametrize("number", [None, "../../x", 1.0, -1])
def test_round_that_could_be_no_file(number: object) -> None:
    """A site's state of a round has its number in the file's name."""
    with pytest.raises(UpdateRefused, match="no round"):
        translation.payload_of(DXO(DataKind.WEIGHTS, {}, {"round": number}).to_shareable())


@pytest.mark.parametrize("number", [None, "../../x", 1.0, -1])
def test_round_of_the_fusion_site_that_could_be_no_file(number: object) -> None:
    meta = {"kind": "fuse", "round": number, "names": [], "known": "", "modalities": []}
    with pytest.raises(FedMEPDError, match="none for a fusion site"):
        translation.fusion_task_of(DXO(DataKind.WEIGHTS, {}, meta).to_shareable())
    meta["round"] = 3
    assert translation.fusion_task_of(DXO(DataKind.WEIGHTS, {}, meta).to_shareable()).round == 3


@pytest.mark.parametrize("field", ["names", "modalities"])
@pytest.mark.parametrize("junk", [LINE, 7, None, "x" * 201, DEEP])
def test_names_in_a_task_of_the_fusion_site_are_names(field: str, junk: object) -> None:
    """They come from the server, and a refusal of the first one that is unknown stands in the hospital's log."""
    meta = {"kind": "fuse", "round": 1, "names": [], "known": "", "modalities": [], field: ["x", junk]}
    with pytest.raises(UpdateRefused, match="none for a fusion site"):
        translation.fusion_task_of(DXO(DataKind.WEIGHTS, {}, meta).to_shareable())


def test_modalities_of_a_model_are_names() -> None:
    with pytest.raises(UpdateRefused, match="its modalities"):
        translation.model_of(DXO(DataKind.WEIGHTS, {}, {"modalities": ["T1", LINE]}).to_shareable())
