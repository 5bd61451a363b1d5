"""For a test job's folder ``custom``: an executor and a controller that fail where the job's configuration says."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from nvflare.apis.fl_constant import FedEventHeader, ReservedKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils import fl_context_utils
from nvflare.private.fed.client import communicator
from nvflare.widgets.fed_event import FED_EVENT_TOPIC

from fedmepd.flare import opening, translation
from fedmepd.flare.controller import FedMEPDController
from fedmepd.flare.executor import FedMEPDExecutor
from fedmepd.flare.fusion_at_a_site import FusionPost
from fedmepd.methods.parts.aggregation import Aggregation
from fedmepd.methods.parts.fusion_training import FusionTrainer

_SECONDS_OF_TRAINING = 5


class FaultyExecutor(FedMEPDExecutor):
    """Fails in training, or does harm.

    Args:
        plan: by site, and by round as text: ``raise``, ``memory``, ``nan``, ``shape``, seconds to wait, as text, or
            ``as NAME``, to answer in another site's name; ``code CODE``, to answer with one of FLARE's codes;
            ``event TYPE``, to send the server an event of FLARE's; ``report``, to report what nobody can add up;
            ``reason``, to fail with a reason that is meant for the console; ``cases``, to report more than it has;
            ``huge``, to change everything a thousand times as much; ``filter``, to put half of a whole update's size
            into every weight of one filter; ``weight``, to change the decoder by a twentieth, for larger weights H.
            In place of the round, ``prepare``: ``as NAME``, ``reason``, or seconds to wait. ``fusion`` before
            ``raise``, ``memory``, ``nan``, ``die`` or seconds makes the fusion site fail so in training; it waits after
            its first step. ``test`` in place of the round: in its test of the global model.
    """

    def __init__(self, plan: dict[str, dict[str, str]]):
        super().__init__()
        self.plan = plan
        self.open_site = self.open_faulty

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
        number = str(translation.payload_of(shareable).round) if task_name == translation.TRAIN else task_name
        fault = self.plan.get(fl_ctx.get_identity_name(), {}).get(number, "")
        communicator.gen_new_peer_ctx = _peer_context_of(fault.partition("as ")[2])
        if task_name == translation.PREPARE and fault.isdigit():
            time.sleep(int(fault))
        return self._harmful(fault, reply, fl_ctx)

    def _harmful(self, fault: str, reply: Shareable, fl_ctx) -> Shareable:
        kind, _, what = fault.partition(" ")
        if kind == "code":
            return make_reply(what)
        if kind == "event":
            event = Shareable()
            event.set_header(FedEventHeader.EVENT_TYPE, what)
            event.set_header(FedEventHeader.TIMESTAMP, time.time())
            fl_ctx.get_engine().fire_and_forget_aux_request(topic=FED_EVENT_TOPIC, request=event, fl_ctx=fl_ctx)
        if kind == "report":
            reply["DXO"]["meta"]["report"] |= {"losses": {"total": 1.7e308}, "seconds": 1.7e308}
        if kind == "reason":
            return make_reply(ReturnCode.EXECUTION_EXCEPTION, {"fedmepd.reason": "\x1b[2J\nround 9: fine" + "x" * 1000})
        return reply

    def open_faulty(self, run, log, fl_ctx):
        site, desk = opening.open_site(run, log, fl_ctx)
        plan = self.plan.get(fl_ctx.get_identity_name(), {})
        faulty = {number: fault.removeprefix("fusion ") for number, fault in plan.items() if "fusion " in fault}
        return _FaultySite(site, plan), desk and _FaultyDesk(desk, faulty)


def _peer_context_of(name: str):
    """What FLARE sends along of a site's context is the site's to write."""

    def make(fl_ctx, *arguments):
        context = fl_context_utils.gen_new_peer_ctx(fl_ctx, *arguments)
        if name:
            context.props[ReservedKey.IDENTITY_NAME]["value"] = name
        return context

    return make


def _breaking(fault: str, owner: str, abort, step: int = 2):
    """What a training or test asks before each of its steps, which fails in that one where a fault says so."""
    steps = 0

    def before_step() -> bool:
        nonlocal steps
        steps += 1
        if steps == step and fault == "raise":
            raise RuntimeError(f"the step failed for /data/{owner}/patient-7")
        if steps == step and fault == "memory":
            torch.empty(1 << 50, dtype=torch.uint8)
        if steps == step and fault == "die":
            # The site's own process too: FLARE runs a job in a process of its own.
            _die()
        if steps == step and fault.startswith("wait "):
            time.sleep(int(fault.removeprefix("wait ")))
        return abort()

    return before_step


class _FaultySite:
    def __init__(self, site, plan: dict[str, str]):
        self.site, self.plan = site, plan

    def __getattr__(self, name: str):
        return getattr(self.site, name)

    def train(self, payload, abort):
        fault = self.plan.get(str(payload.round), "")
        if fault.isdigit():
            time.sleep(int(fault))
        update = self.site.train(payload, _breaking(fault, self.site.name, abort))
        if fault == "nan":
            update.tensors["decoder.classify.weight"][0] = float("nan")
        if fault == "cases":
            update.report["cases"] = 16384
        if fault == "huge":
            for change in update.tensors.values():
                change *= 1000
        if fault == "filter":
            size = sum(float(change.square().sum()) for change in update.tensors.values()) ** 0.5
            for change in update.tensors.values():
                change.zero_()
            update.tensors["decoder.classify.weight"][1] = size / 2
        if fault == "weight":
            for key, change in update.tensors.items():
                change *= 0.05 if key.startswith("decoder.") else 1
        if fault == "shape":
            update.tensors["decoder.classify.weight"] = update.tensors["decoder.classify.weight"][:, :1]
        return update


class _FaultyDesk:
    """A fusion site that fails, once in each round of its plan."""

    def __init__(self, desk, plan: dict[str, str]):
        self.desk, self.plan = desk, plan

    def __getattr__(self, name: str):
        return getattr(self.desk, name)

    def do(self, task, abort, progress=None):
        fault = self.plan.pop({"fuse": str(task.round)}.get(task.kind, task.kind), "")
        fault = f"wait {fault}" if fault.isdigit() else fault
        reply = self.desk.do(task, _breaking(fault, "fusion", abort, 2 if task.kind == "fuse" else 1), progress)
        if fault == "nan":
            reply.tensors["decoder.classify.weight"][0] = float("nan")
        return reply


class FaultyController(FedMEPDController):
    """Ends the server, all of its processes, as ``kill -9`` does: once in each of some rounds.

    Args:
        preset, settings: as of the controller.
        plan: by round as text: ``aggregation``, ``fusion training`` or ``checkpoint``; with the fusion site at a
            hospital, ``fusion task`` (while that trains) or ``fusion answer`` (as it arrives).
        marks: folder for a file for each death, so that it does not repeat.
    """

    def __init__(self, preset: str, settings: dict, plan: dict[str, str], marks: str):
        super().__init__(preset, settings)
        self.plan, self.marks = plan, Path(marks)
        self.open_server = self.open_faulty

    def open_faulty(self, *arguments, **keywords):
        server = opening.open_server(*arguments, **keywords)
        self._arm(server)
        return server

    def _arm(self, server) -> None:
        def die_in(place: str) -> None:
            number = str(server.round + 1)
            mark = self.marks / number
            if self.plan.get(number) == place and not mark.exists():
                self.marks.mkdir(parents=True, exist_ok=True)
                mark.touch()
                _die()

        result, train, fsync = Aggregation.result, FusionTrainer.train, os.fsync
        ask = FusionPost._ask

        def dying_result(aggregation):
            found = result(aggregation)
            die_in("aggregation")
            return found

        def dying_train(*arguments, progress, **keywords):
            def tell(step, loss):
                if step == 2:
                    die_in("fusion training")
                progress(step, loss)

            return train(*arguments, progress=tell, **keywords)

        def dying_fsync(descriptor):
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if ".server_state.pt." in name:
                # By then, the server counts the round as done.
                number = str(server.round)
                mark = self.marks / number
                if self.plan.get(number) == "checkpoint" and not mark.exists():
                    mark.touch()
                    os.truncate(name, os.path.getsize(name) // 2)
                    _die()
            fsync(descriptor)

        def dying_ask(post, task, deadline):
            late = threading.Timer(_SECONDS_OF_TRAINING, die_in, ["fusion task"])
            if task.kind == "fuse":
                late.start()
            answer = ask(post, task, deadline)
            late.cancel()
            if task.kind == "fuse":
                die_in("fusion answer")
            return answer

        FusionPost._ask = dying_ask
        Aggregation.result = dying_result
        FusionTrainer.train = dying_train
        os.fsync = dying_fsync


class WatchedController(FedMEPDController):
    """Notes every file of the data folder and of the cache of prepared cases that the server's process opens.

    Args:
        preset, settings: as of the controller.
        notes: file for their paths.
    """

    def __init__(self, preset: str, settings: dict, notes: str):
        super().__init__(preset, settings)
        Path(notes).touch()
        folders = tuple(os.environ[name] + os.sep for name in ("FEDMEPD_DATA", "FEDMEPD_CACHE"))

        def watch(event, arguments):
            if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
                path = os.fspath(arguments[0])
                if path.startswith(folders):
                    with open(notes, "a") as file:
                        print(path, file=file)

        sys.addaudithook(watch)


class HostileController(FedMEPDController):
    """Sends a site what may harm it.

    Args:
        preset, settings: as of the controller.
        plan: by site, and by round as text: ``anchors`` (20,000 of each level), ``round`` (a round that no job has), or
            ``width`` (a weight four thousand times as wide).
    """

    def __init__(self, preset: str, settings: dict, plan: dict[str, dict[str, str]]):
        super().__init__(preset, settings)
        self.plan = plan
        self.open_server = self.open_hostile

    def open_hostile(self, *arguments, **keywords):
        server = opening.open_server(*arguments, **keywords)
        honest = server.payload

        def payload(site):
            made = honest(site)
            attack = self.plan.get(site, {}).get(str(made.round), "")
            if attack == "anchors":
                made.tensors |= {f"anchors.{level}": torch.zeros(20_000, 2 ** (level + 1)) for level in (1, 2, 3, 4)}
            if attack == "round":
                made.round = 10**6
            if attack == "width":
                made.tensors["decoder.classify.weight"] = torch.zeros(4, 4096, 1, 1, 1)
            return made

        server.payload = payload
        return server


def _die() -> None:
    # FLARE's server runs a job in a process of its own: both end, the parent first.
    for process in (psutil.Process().parent(), psutil.Process()):
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(60)
