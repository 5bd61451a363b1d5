"""Files that survive: written beside their place, flushed to disk, then renamed over the old one."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import pickle
import shutil
import tempfile
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fedmepd.closest import like_path
from fedmepd.errors import LONGEST_MESSAGE, CheckpointError, FedMEPDError, plain_text, remedy
from fedmepd.pickles import Refused, require_plain

_IMPORT = ". A checkpoint published by FedMEPD's authors is brought in with `fedmepd checkpoint import`"

_PART = ".part"

# JSON's words for what Python reads.
_JSON_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}

# Of a JSON file of somebody else's. The curves of a hundred sites need a hundredth of it.
_MOST_BYTES, _MOST_NESTED = 2**27, 32

# What torch reads again without running anybody's code, beside tensors.
_MAPPINGS = (dict, OrderedDict)
_SEQUENCES = (list, tuple, set)
_PLAIN = (str, float, bool, type(None))
# Longer ones are written in a way that it does not read.
_INTEGER_BITS = 2000


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], None], check: Callable[[Path], Any] = lambda written: None
) -> None:
    """Writes a file so that ``path`` holds either its old content or all of the new.

    Args:
        path: the file to replace; its folder is made when missing.
        write: called with the open binary file.
        check: called with the new file before the old one goes; what it raises leaves the old one in its place.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise cannot_write(path, error) from error


def copy_file(source: Path, target: Path) -> None:
    """Copies a file with its date, unless the copy is there and has the same date and size.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written; an old copy is untouched.
    """
    of_source = source.stat()
    if target.is_file() and (of_source.st_size, of_source.st_mtime_ns) == (
        target.stat().st_size,
        target.stat().st_mtime_ns,
    ):
        return

    def copy(file: IO[bytes]) -> None:
        with open(source, "rb") as content:
            shutil.copyfileobj(content, file)

    write_atomically(target, copy, check=lambda written: shutil.copystat(source, written))


def cannot_write(path: Path, error: OSError) -> FedMEPDError:
    """Returns the error that says why a file could not be written."""
    return FedMEPDError(
        f"cannot write {path}: {error}. What was there before is unchanged; {remedy(error)}, then start the run again.",
        public=f"the state cannot be written: {error.strerror or type(error).__name__}",
    )


def require_writable(folder: Path, option: str) -> None:
    """Tries whether a folder can be written, or made, before anything is computed for it. Nothing is left behind.

    Args:
        folder: the folder; need not exist.
        option: by which the user names it.

    Raises:
        FedMEPDError: it cannot.
    """
    place = folder.absolute()
    nearest = next(existing for existing in (place, *place.parents) if existing.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise FedMEPDError(f"{option} {folder} cannot be written: {error.strerror}; {remedy(error)}") from error


def remove_leftovers(folder: Path) -> None:
    """Removes what a process left half written when it was killed.

    Args:
        folder: in which nobody else writes.
    """
    for path in Path(folder).glob(f".*{_PART}"):
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    # Windows has no folders that can be opened.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, taken: str | None) -> Iterator[None]:
    """Keeps a lock on a file; the operating system releases it when this process ends, however it ends.

    Args:
        path: the file, which stays; its folder is made when missing.
        taken: the message if another process has the lock; None: wait for it.

    Raises:
        FedMEPDError: another process has it, or the file cannot be written.
    """
    # Late, so that the commands that lock nothing do not wait for it.
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The lock itself does not say why it cannot be had.
        open(path, "a").close()
    except OSError as error:
        raise FedMEPDError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if taken is None else 0)
    except Timeout as error:
        raise FedMEPDError(taken) from error
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(
    path: Path,
    what: str,
    error: type[FedMEPDError] = FedMEPDError,
    *,
    hint: str = "",
    public: str | None = None,
    kinds: tuple[type, ...] = (dict,),
) -> Any:
    """Reads a JSON file that holds an object.

    Args:
        path: the file.
        what: what it should be, for the message: "the results of a run".
        error: kind of the error that is raised.
        hint: what to do about it, appended to the message.
        public: what of the message may leave a site; see :class:`fedmepd.errors.FedMEPDError`.
        kinds: of value that are accepted: ``dict`` (an object), ``list`` (an array).

    Raises:
        FedMEPDError: the file is missing, cannot be read, is not JSON, or holds another kind of value.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): expected {what}{hint}", public) from problem
    # Nested too deep, JSON of a stranger raises RecursionError.
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read as JSON ({_fault(problem)}): expected {what}{hint}", public) from problem
    if not isinstance(content, kinds):
        raise error(f"{path} holds {_JSON_KINDS[type(content)]}: expected {what}{hint}", public)
    return content


def _fault(problem: Exception) -> str:
    """Why a text is no JSON; Python's words for what editors add are no help to whoever uses one."""
    if isinstance(problem, UnicodeDecodeError):
        return "it is no UTF-8 text: save it as UTF-8"
    if isinstance(problem, json.JSONDecodeError) and problem.doc.startswith(codecs.BOM_UTF8.decode()):
        return "it begins with a byte order mark: save it as UTF-8 without one"
    return str(problem)


def has_file(path: Path, error: type[FedMEPDError], hint: str) -> bool:
    """Whether a file is there whose absence means something.

    Args:
        path: of the file.
        error: kind of the error that is raised.
        hint: what to do, as the end of its message.

    Raises:
        FedMEPDError: something else is there, such as a folder, or a link that leads nowhere.
    """
    if path.is_file():
        return True
    if not os.path.lexists(path):
        return False
    what = "a folder" if path.is_dir() else "no plain file" if path.exists() else "a link that leads nowhere"
    raise error(f"{path} is {what}: expected a file{hint}")


def refuse_huge(path: Path, expected: str) -> None:
    """Refuses a JSON file that is larger than any that is written here.

    Args:
        path: the file; it may be missing.
        expected: the end of the message.

    Raises:
        FedMEPDError: it is.
    """
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise FedMEPDError(f"{path} has more than {_MOST_BYTES // 2**20} MiB: {expected}")


def read_foreign_json(path: Path, what: str, *, hint: str = "") -> dict[str, Any]:
    """Reads a JSON file that somebody else may have written, as :func:`read_json` does.

    Its texts go to terminals and pages: they are cut, and their control characters escaped.

    Args:
        path, what, hint: as of :func:`read_json`.

    Raises:
        FedMEPDError: as of :func:`read_json`; or the file is larger, or nested deeper, than any that is written here.
    """
    expected = f"expected {what}{hint}"
    refuse_huge(path, expected)

    def plain(content: Any, depth: int = 1) -> Any:
        if depth > _MOST_NESTED:
            raise FedMEPDError(f"{path} is nested more than {_MOST_NESTED} deep: {expected}")
        if isinstance(content, dict):
            return {plain_text(key, LONGEST_MESSAGE): plain(value, depth + 1) for key, value in content.items()}
        if isinstance(content, list):
            return [plain(value, depth + 1) for value in content]
        return plain_text(content, LONGEST_MESSAGE) if isinstance(content, str) else content

    return plain(read_json(path, what, hint=hint))


def save_tensors(path: Path, content: dict[str, Any], read_back: bool = False) -> None:
    """Writes a dictionary of tensors and plain values atomically, in torch's format.

    Whatever :func:`load_tensors` would not read is refused before anything is written: a value that could be written
    and never read again would cost the run.

    Args:
        path: the file.
        content: of it.
        read_back: also read the new file before it replaces the old one; for content that comes from strangers. It
            takes twice as long as writing.

    Raises:
        FedMEPDError: it cannot be written.
        CheckpointError: it holds something else than tensors and plain values.
    """
    import torch

    _require_plain(path, content, (torch.Tensor, torch.nn.Parameter))
    # Through memory, since torch's own writer hides why a write failed (a full disk, say).
    buffer = io.BytesIO()
    torch.save(content, buffer)
    check = load_tensors if read_back else lambda written: None
    write_atomically(path, lambda file: file.write(buffer.getbuffer()), check)


def _require_plain(path: Path, value: Any, tensors: tuple[type, ...]) -> None:
    # Exact types: a number of numpy's is a float too, and is written as something that is not read.
    kind = type(value)
    if kind in _MAPPINGS:
        for key, entry in value.items():
            _require_plain(path, key, tensors)
            _require_plain(path, entry, tensors)
    elif kind in _SEQUENCES:
        for entry in value:
            _require_plain(path, entry, tensors)
    elif kind in tensors:
        if _claims_more(value):
            raise CheckpointError(
                f"{path} was not written: it would hold a tensor of shape {tuple(value.shape)} with fewer values than "
                "that, which is not read again: make it contiguous"
            )
    elif kind not in _PLAIN and not (kind is int and value.bit_length() <= _INTEGER_BITS):
        raise CheckpointError(
            f"{path} was not written: it would hold something else than tensors and plain values, and nobody could "
            f"read it again ({kind.__module__}.{kind.__qualname__})"
        )


def _require_honest_size(path: Path, kind: str) -> None:
    """Refuses a file that unpacks to more than it is: torch writes its parts as they are, a stranger may pack them."""
    try:
        with zipfile.ZipFile(path) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
    # Of another kind, damaged, or of torch before 1.6: torch says what is wrong with it.
    except (OSError, ValueError, zipfile.BadZipFile):
        return
    if unpacked > (size := path.stat().st_size):
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: its {size} bytes unpack to {unpacked}, which torch never writes; take "
            "the file from somebody whom you trust"
        )


def load_tensors(
    path: Path,
    kind: str = "fedmepd file",
    hint: str = _IMPORT,
    allowed: Sequence[Any] = (),
    from_outside: bool = False,
) -> dict:
    """Reads what :func:`save_tensors` wrote, on the CPU. Nothing but tensors and plain values is unpickled.

    Args:
        path: the file.
        kind, hint: for the message when it cannot be read: what it should be, and what to do.
        allowed: types that may be rebuilt besides.
        from_outside: whether somebody else may have written it; it is then read twice, first without making anything.

    Raises:
        CheckpointError: the file is missing, truncated, or holds anything else.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected a {kind}{like_path(path)}")
    _require_honest_size(path, kind)
    try:
        if from_outside:
            require_plain(path, arrays=bool(allowed))
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Refused as error:
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: {error}; take the file from somebody whom you trust{hint}"
        ) from error
    except pickle.UnpicklingError as error:
        # torch's own text advises to load it without protection, which is the last thing to do with an unknown file.
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: it is damaged, or another kind of file{hint}"
        ) from error
    # A stranger's bytes can make torch and numpy raise anything, MemoryError too.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a {kind}, it is damaged: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the dictionary of a {kind}")
    _require_own_values(path, kind, content)
    return content


def _claims_more(value: Any) -> bool:
    """Whether a tensor has fewer values in memory than by its shape: any copy of it would take the memory of these.

    A few bytes in a file can be a tensor of any size, whose values are all the same one.
    """
    import torch

    # Of others, which have no such memory, the reader of each says whether it takes them.
    if value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _require_own_values(path: Path, kind: str, content: dict) -> None:
    """Refuses tensors and arrays with fewer values than by their shape, before anybody copies one."""
    import torch

    size, left, seen = path.stat().st_size, [content], set()
    while left:
        value = left.pop()
        # Lists of the same lists are looked through once.
        if isinstance(value, str | int | float | None) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            too_large = _claims_more(value)
        else:
            # An array of numpy's knows no memory of its own, but cannot be larger than its file.
            too_large = getattr(value, "nbytes", 0) > size
        if too_large:
            raise CheckpointError(
                f"{path} cannot be read as a {kind}: it holds values of shape {tuple(value.shape)} and fewer of them "
                "than that; take the file from somebody whom you trust"
            )
        if isinstance(value, _MAPPINGS):
            left += value.keys()
            left += value.values()
        elif isinstance(value, _SEQUENCES):
            left += value
