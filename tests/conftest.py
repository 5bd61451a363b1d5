import os

import pytest

# Before anything imports PyTorch: the workers, and the processes that they start, would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Two workers: tests that start FLARE's processes one after the other in one, the files of all others in the other.

    System tests come first, since they are the longest group.
    """
    for item in items:
        group = "system" if item.get_closest_marker("system") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The cohort of tests/tiny.py, written once."""
    from tests.tiny import Tiny

    return Tiny(tmp_path_factory.mktemp("tiny"))
