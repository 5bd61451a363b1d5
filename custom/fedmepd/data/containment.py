"""Which files may be read: those inside a case's folder, but none elsewhere that a link or a path in a list leads
to.
"""

from __future__ import annotations

from pathlib import Path

from fedmepd.data.findings import Finding, error

OUTSIDE = "file outside the case's folder"


def outside(path: Path, folder: Path, follow_links: bool) -> Finding | None:
    """Returns the error of a file that is outside ``folder`` or links out of it; None for all other files.

    Args:
        path: a path below ``folder``.
        folder: the folder of a case or of a list.
        follow_links: whether the user allows links that lead elsewhere; ``..`` and absolute paths are never allowed.
    """
    # RuntimeError and OSError: circular links.
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        leaves = True
    named_outside = not path.absolute().is_relative_to(folder.absolute())
    named_outside = named_outside or ".." in path.absolute().relative_to(folder.absolute()).parts
    if not leaves or (follow_links and not named_outside):
        return None
    return error(
        OUTSIDE,
        f"{path} leads out of {folder}: copy it there"
        + ("" if named_outside else ", or, if you made that link, say --follow-links"),
    )
