"""For a test job's folder ``custom``: an executor and a controller that fail where the job's configuration says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import torch
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.utils import fl_context_utils
from nvflare.private.fed.client import communicator

from fedmepd.federation import server as server_module
from fedmepd.flare import translation
from fedmepd.flare.controller import FedMEPDController
from fedmepd.flare.executor import FedMEPDExecutor


class FaultyExecutor(FedMEPDExecutor):
    """Fails in training.

    Args:
        plan: by site, and by round as text: ``raise``, ``memory``, ``nan``, ``shape``, seconds to wait, as text, or
            ``as NAME``, to answer in another site's name.
    """

    def __init__(self, plan: dict[str, dict[str, str]]):
        super().__init__()
        self.plan = plan

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
        number = str(translation.payload_of(shareable).round) if task_name == translation.TRAIN else ""
        fault = self.plan.get(fl_ctx.get_identity_name(), {}).get(number, "")
        communicator.gen_new_peer_ctx = _peer_context_of(fault.partition("as ")[2])
        return reply

    def _open(self, run, fl_ctx):
        return _FaultySite(super()._open(run, fl_ctx), self.plan.get(fl_ctx.get_identity_name(), {}))


def _peer_context_of(name: str):
    """What FLARE sends along of a site's context is the site's to write."""

    def make(fl_ctx, *arguments):
        context = fl_context_utils.gen_new_peer_ctx(fl_ctx, *arguments)
        if name:
            context.props[ReservedKey.IDENTITY_NAME]["value"] = name
        return context

    return make


class _FaultySite:
    def __init__(self, site, plan: dict[str, str]):
        self.site, self.plan = site, plan
        self.profile, self.test = site.profile, site.test

    def train(self, payload, abort):
        fault = self.plan.get(str(payload.round), "")
        if fault.isdigit():
            time.sleep(int(fault))
        steps = 0

        def before_step() -> bool:
            nonlocal steps
            steps += 1
            if steps == 2 and fault == "raise":
                raise RuntimeError(f"the step failed for /data/{self.site.name}/patient-7")
            if steps == 2 and fault == "memory":
                torch.empty(1 << 50, dtype=torch.uint8)
            return abort()

        update = self.site.train(payload, before_step)
        if fault == "nan":
            update.tensors["decoder.classify.weight"][0] = float("nan")
        if fault == "shape":
            update.tensors["decoder.classify.weight"] = update.tensors["decoder.classify.weight"][:, :1]
        return update


class FaultyController(FedMEPDController):
    """Ends the server, all of its processes, as ``kill -9`` does: once in each of some rounds.

    Args:
        preset, settings: as of the controller.
        plan: by round as text: ``aggregation``, ``fusion training`` or ``checkpoint``.
        marks: folder for a file for each death, so that it does not repeat.
    """

    def __init__(self, preset: str, settings: dict, plan: dict[str, str], marks: str):
        super().__init__(preset, settings)
        self.plan, self.marks = plan, Path(marks)

    def _open_server(self, folder, abort_signal, fl_ctx):
        server = super()._open_server(folder, abort_signal, fl_ctx)
        if server is not None:
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

        result, train, fsync = server_module.Aggregation.result, server._fusion.train, os.fsync

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

        server_module.Aggregation.result = dying_result
        server._fusion.train = dying_train
        os.fsync = dying_fsync


def _die() -> None:
    # FLARE's server runs a job in a process of its own: both end, the parent first.
    for process in (psutil.Process().parent(), psutil.Process()):
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(60)
