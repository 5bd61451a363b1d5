"""Hands the root that `nvflare provision` made to `nvflare cert approve`: python root.py WORKSPACE CA

A hospital that makes its own key can then join those that got their kits from `nvflare provision`.
WORKSPACE is the folder of one project (`workspace/fedmepd`), CA the folder to write.
"""

import json
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID


def hand_over(workspace: Path, folder: Path) -> str:
    """Writes the files that `nvflare cert init` would have made; returns the root certificate's fingerprint."""
    state = json.loads((workspace / "state/cert.json").read_text())
    root = x509.load_pem_x509_certificate(state["root_cert"].encode())
    [project] = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    fingerprint = f"SHA256:{root.fingerprint(SHA256()).hex(':').upper()}"
    about = {"project": project.value, "provision_version": "00", "rootCA_fingerprint": fingerprint}
    folder.mkdir(mode=0o700)
    for name, text in {
        "rootCA.pem": state["root_cert"],
        "rootCA.key": state["root_pri_key"],
        "ca.json": json.dumps(about, indent=2),
    }.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    return fingerprint


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(hand_over(Path(sys.argv[1]), Path(sys.argv[2])))
