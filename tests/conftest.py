import gc
import os
import sys

import pytest

from tests.left_behind import changes, shared

# Before anything imports PyTorch: the workers, and the processes that they start, would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


SYSTEM = "tests/system/"
SHARED = pytest.StashKey()
# Files that read the same dear runs of tests/federation/conftest.py.
WITH_FINISHED_RUNS = {
    f"tests/federation/test_{name}.py" for name in ("case_list", "cross_site", "diary", "in_process", "privacy")
}


# Collection makes a million objects that stay. Python would look through them for garbage, again and again.
gc.disable()


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()
    session.config.stash[SHARED] = shared()


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind(request):
    """Fails the last test of a file that leaves the process changed, or whose session fixtures do."""
    yield
    assert not changes(request.config.stash[SHARED], shared())


@pytest.fixture(autouse=True)
def same_threads():
    """Sites set the number of PyTorch's threads of their process: it is what it was for the next test."""
    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


def pytest_collection_modifyitems(items):
    """System tests come first, since together they take longer than all others."""
    items.sort(key=lambda item: not item.nodeid.startswith(SYSTEM))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker runs a file, or files that share runs. The first begins with the system tests, the others do not.

    System tests start many processes and often wait for them: beside them, another file makes use of the cores. Whoever
    is done with its own kind helps with the other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "finished runs" if file in WITH_FINISHED_RUNS else file

        def _assign_work_unit(self, node):
            is_first = node is self.nodes[0]
            own_kind = [scope for scope in self.workqueue if scope.startswith(SYSTEM) == is_first]
            if own_kind:
                self.workqueue.move_to_end(own_kind[0], last=False)
            super()._assign_work_unit(node)

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The cohort of tests/tiny.py, written once."""
    from tests.tiny import Tiny

    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_apart(tmp_path_factory):
    """The same, and the patients of the fusion site are none of the sites'."""
    from tests.tiny import Tiny

    return Tiny(tmp_path_factory.mktemp("tiny-apart"), apart=True)
