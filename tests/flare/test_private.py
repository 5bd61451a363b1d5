"""Every private name of FLARE that is used stands in one module, and is there in the FLARE that is installed."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import textwrap
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FedEventHeader, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.private.aux_runner import AuxRunner
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_runner import ServerRunner, ServerRunnerConfig
from nvflare.widgets.fed_event import FED_EVENT_TOPIC, ServerFedEventRunner

import fedmepd.flare
from fedmepd.flare import private

PACKAGE = Path(fedmepd.flare.__file__).parents[1]
MODULES = [module.name for module in pkgutil.walk_packages(fedmepd.flare.__path__, "fedmepd.flare.")]


def attributes(tree: ast.AST) -> set[str]:
    """The names that are read or set of ``self``."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def source(kind: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(kind)))


def flares(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.startswith("nvflare.")]


def names_of(kind: type) -> set[str]:
    """What an object of this class of FLARE has: methods, and what its code sets."""
    return set(dir(kind)).union(*(attributes(source(base)) for base in flares(kind)))


def found(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_release_that_they_were_taken_from() -> None:
    assert metadata.version("nvflare").startswith("2.9.")


@pytest.mark.parametrize("name", private.SCATTER_AND_GATHER)
def test_scatter_and_gather_has(name: str) -> None:
    assert name in names_of(ScatterAndGather)


def test_steps_are_called_as_they_are_replaced() -> None:
    expected = ["self", "client_name", "result", "fl_ctx", "is_unknown_task"]
    assert list(inspect.signature(ScatterAndGather._accept_train_result).parameters) == expected
    # The flow goes on from the round that is set before, and hands on what is set.
    flow = inspect.getsource(ScatterAndGather.control_flow)
    assert "if self._current_round is None" in flow
    for name in ("self._num_rounds", "self.aggregator.aggregate(", "self.shareable_gen.", "self.broadcast_and_wait("):
        assert name in flow


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in private.SERVER.items() for name in names])
def test_the_server_has(path: str, name: str) -> None:
    assert name in names_of(found(path))


def test_the_message_that_deploys() -> None:
    parameters = list(inspect.signature(JobRunner._make_deploy_message).parameters)
    assert parameters == ["job", "app_data", "app_name", "fl_ctx"]


class OneRun:
    """What of a server's engine its runner and the sites' messages meet."""

    def __init__(self) -> None:
        self.run_manager = SimpleNamespace(aux_runner=AuxRunner(self))

    def register_aux_message_handler(self, topic, message_handle_func) -> None:
        self.run_manager.aux_runner.register_aux_message_handler(topic, message_handle_func)


def test_no_site_ends_the_job_of_all_or_raises_events() -> None:
    engine = OneRun()
    runner = ServerRunner(ServerRunnerConfig(1, 0, [], {}, {}), "job-1", engine)
    events = ServerFedEventRunner()
    context = FLContextManager(engine=engine, identity_name="server", job_id="job-1").new_context()
    context.set_prop(FLContextKey.RUNNER, runner, private=True)
    events.handle_event(EventType.START_RUN, context)
    private.take_no_orders(context)
    # The class stays as it is, for other jobs.
    assert runner.ABORT_RETURN_CODES == [] and "UNSAFE_JOB" in ServerRunner.ABORT_RETURN_CODES
    event = Shareable()
    event.set_header(FedEventHeader.EVENT_TYPE, EventType.FATAL_SYSTEM_ERROR)
    event.set_header(FedEventHeader.TIMESTAMP, 1.0)
    event.set_peer_props({ReservedKey.IDENTITY_NAME: "site-2"})
    reply = engine.run_manager.aux_runner.topic_table[FED_EVENT_TOPIC](FED_EVENT_TOPIC, event, context)
    assert reply.get_return_code() == ReturnCode.BAD_REQUEST_DATA and events.in_events == []


def test_the_simulators_job() -> None:
    assert private.SIMULATOR_JOB == "simulate_job"


@pytest.mark.parametrize("name", MODULES)
def test_no_other_private_name_is_used(name: str) -> None:
    """Neither imported, nor of a class of FLARE that one of ours extends; the same name by chance is refused too."""
    file = Path(importlib.util.find_spec(name).origin)
    assert name == private.__name__ or "nvflare.private" not in file.read_text(encoding="utf-8")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("mlflow", "wandb"):
            raise
        pytest.skip(f"{error.name} is not installed")
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == name and flares(kind):
            tree = source(kind)
            ours = attributes(tree) | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            inherited = set().union(*map(names_of, flares(kind)))
            used = {one for one in ours & inherited if one.startswith("_") and not one.startswith("__")}
            assert used <= private.SCATTER_AND_GATHER.keys(), used


def test_nothing_outside_flare_imports_it() -> None:
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "flare" not in path.parents:
            assert "nvflare.private" not in path.read_text(encoding="utf-8"), path
