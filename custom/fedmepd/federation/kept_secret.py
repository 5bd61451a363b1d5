"""The secret of a site in a run: kept beside its states, so that a round can be repeated there and nowhere else."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from fedmepd.errors import CheckpointError
from fedmepd.seeds import Secret
from fedmepd.storage import read_json, write_atomically

FILE_NAME = "secret.json"
_BYTES = 32


def kept_secret(folder: Path) -> Secret:
    """Returns the secret in a folder; draws one where there is none yet. Only its owner can read the file.

    Raises:
        CheckpointError: the file is damaged.
        FedMEPDError: it cannot be written.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        content = json.dumps({"secret": secrets.token_hex(_BYTES)}).encode()
        # The rights before the name: a process that is killed in between leaves no secret that others can read.
        write_atomically(path, lambda file: file.write(content), lambda written: os.chmod(written, 0o600))
    hint = ": remove it to draw another one; the run then goes on with other crops"
    secret = read_json(path, "the secret of a site", CheckpointError, hint=hint).get("secret")
    if not isinstance(secret, str) or len(secret) != 2 * _BYTES:
        raise CheckpointError(f"{path} is damaged{hint}")
    return (secret,)
