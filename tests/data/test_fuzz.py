"""Mutated headers: the reader may refuse a file, it may not crash, hang, take memory, or open another one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.data.files import save, tumour, volume

MUTATIONS = 2500
SECONDS = 120

# In a process of its own: a crash would end it, a hang would outlast it, its memory is limited, and a hook sees
# every file that it opens.
PROGRAM = """
import json, random, resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy, nibabel, nibabel.arrayproxy, gzip, scipy.ndimage
from fedmepd.data.case_facts import case_facts
from fedmepd.data.cases import Case
from fedmepd.data.volumes import VolumeError, read_volumes
from fedmepd.tasks.brats import BRATS

folder, count = Path(sys.argv[1]), int(sys.argv[2])
originals = {suffix: (folder / f"original{suffix}").read_bytes() for suffix in (".nii", "2.nii")}
other = {"label": folder / "label.nii"}
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))

# Modules that a first reading imports are no case's files.
case_facts(Case("case", {"T1": folder / "original.nii"}, other["label"], task=BRATS), None, ThreadPoolExecutor(1))
opened = []
sys.addaudithook(lambda event, details: opened.append(str(details[0])) if event == "open" else None)

odd = [0, 1, -1, 127, 128, 255, 32767, 65535, 2**31 - 1, 2**32 - 1]
result = {"read": 0, "refused": 0, "faulty": 0, "elsewhere": []}
for number in range(count):
    chance = random.Random(number)
    content = bytearray(originals[chance.choice([".nii", ".nii", "2.nii"])])
    length = 348 if content[0] == 92 else 540
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        place = chance.randrange(length + 8)
        if chance.random() < 0.5:
            content[place] = chance.randrange(256)
        else:
            size = chance.choice([2, 4, 8])
            value = chance.choice(odd) if chance.random() < 0.7 else chance.getrandbits(8 * size)
            content[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, chance.choice(["little", "big"]))
    if chance.random() < 0.2:
        content = content[: chance.randrange(len(content))]
    name = "mutated.nii"
    if chance.random() < 0.3:
        content, name = gzip.compress(bytes(content), 1), "mutated.nii.gz"
    file = folder / name
    file.write_bytes(bytes(content))
    opened.clear()
    with ThreadPoolExecutor(1) as pool:
        facts = case_facts(Case("case", {"T1": file}, other["label"], task=BRATS), None, pool)
        try:
            values = read_volumes(file).values
            assert values.ndim == 3 and values.nbytes <= 2**28
            result["read"] += 1
            result["faulty"] += any(found.severity == "error" for found in facts.findings)
        except VolumeError:
            result["refused"] += 1
            assert any(found.severity == "error" for found in facts.findings), number
    result["elsewhere"] += [path for path in opened if not path.startswith(str(folder))]
print(json.dumps(result))
"""


def test_mutated_headers(tmp_path):
    save(tmp_path / "original.nii", volume(dtype="int16"))
    save(tmp_path / "label.nii", tumour())
    import nibabel

    nibabel.save(nibabel.Nifti2Image(volume(dtype="float32"), np.eye(4)), tmp_path / "original2.nii")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(MUTATIONS)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "custom"), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["elsewhere"] == [], run.stderr
    assert result["read"] + result["refused"] == MUTATIONS
    # The mutations matter, and are not all of one kind.
    assert result["read"] > MUTATIONS / 10 and result["refused"] > MUTATIONS / 10
    assert run.stderr == ""
