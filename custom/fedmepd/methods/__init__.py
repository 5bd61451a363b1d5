"""The methods. Each is one file of this folder and is found by its name.

>>> from fedmepd import methods
>>> methods.find("fedavg").paper
'McMahan et al., AISTATS 2017'
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from fedmepd.closest import one_of
from fedmepd.errors import SettingsError

if TYPE_CHECKING:
    from fedmepd.methods.method import Method

_FIRST = "fedmepd"


def names() -> list[str]:
    """Returns the names of all methods: FedMEPD first, then the methods that it is compared with."""
    found = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg} - {"method"}
    return sorted(found, key=lambda name: (name != _FIRST, name))


def private_names() -> list[str]:
    """Returns the names of the methods that can be trained with differential privacy."""
    return [name for name in names() if find(name).private]


def find(name: str) -> Method:
    """Returns the method with a name, which is the name of its file.

    Raises:
        SettingsError: there is no method with this name.
    """
    if name not in names():
        raise SettingsError(f"settings: method = {name!r}: {one_of(name, names())}")
    return importlib.import_module(f"{__name__}.{name}").METHOD
