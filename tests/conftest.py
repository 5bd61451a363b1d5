import os

import pytest

# Before anything imports PyTorch: the workers, and the processes that they start, would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


SYSTEM = "tests/system/"


def pytest_collection_modifyitems(items):
    """System tests come first, since together they take longer than any other file."""
    items.sort(key=lambda item: not item.nodeid.startswith(SYSTEM))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Two workers: the system tests, each of which starts many processes, run one after the other in one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return SYSTEM if nodeid.startswith(SYSTEM) else nodeid.partition("::")[0]

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
