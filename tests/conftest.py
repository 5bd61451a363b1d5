import os

import pytest

# Before anything imports PyTorch: the workers, and the processes that they start, would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


SYSTEM = "tests/system/"


def pytest_collection_modifyitems(items):
    """System tests come first, since together they take longer than all others."""
    items.sort(key=lambda item: not item.nodeid.startswith(SYSTEM))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file runs in one worker. The first worker begins with the system tests, the others with the rest.

    System tests start many processes and often wait for them: beside them, another file makes use of the cores. Whoever
    is done with its own kind helps with the other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid.partition("::")[0]

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
