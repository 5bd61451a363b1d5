import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The cohort of tests/tiny.py, written once."""
    from tests.tiny import Tiny

    return Tiny(tmp_path_factory.mktemp("tiny"))
