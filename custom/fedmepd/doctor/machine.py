"""Memory, GPU and disk, against what the job needs at this site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.computer import Computer
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.needs import GIB, prepared_need, run_need
from fedmepd.doctor.site_data import Looked
from fedmepd.errors import SettingsError
from fedmepd.site_settings import SiteSettings
from fedmepd.training.memory_needs import gpu_need, memory_need

if TYPE_CHECKING:
    import torch

_JOB, _GPU, _MEMORY, _DISK = Topic("job"), Topic("GPU"), Topic("memory"), Topic("disk")

# From this number of voxels times channels on, a processor takes seconds for a step: half of the published settings.
_LARGE_STEP = 80**3 * 16 / 2

_SMALLER = "or a job with smaller training.crop, training.batch, evaluation.window or network.width"


def check_compute(expected: Expected, machine: SiteSettings, looked: Looked, computer: Computer) -> Iterator[Check]:
    """Compares memory and GPU with the job's needs, see :mod:`fedmepd.training.memory_needs`.

    Args:
        expected: with the job's settings.
        machine: the site's settings, with the device to train on.
        looked: the site's modalities, and whether anything is trained here.
        computer: the machine itself.
    """
    settings, modalities = expected.settings, looked.modalities
    training = settings.training
    names = " ".join(modalities) if looked.known else "all modalities, since the site's are not known"
    text = f"width {settings.network.width}, {training.batch} x {training.crop}^3 voxels a step, {names}"
    if expected.source:
        yield _JOB.ok("settings", f"{text}: {expected.source}")
    else:
        yield _JOB.note(
            "published settings assumed", text, "--job FOLDER, or --against FILE, says what the job will be"
        )
    if not looked.networks:
        yield _GPU.ok("none needed", "nothing is trained here")
        return
    try:
        device = machine.torch_device()
    except SettingsError as error:
        yield _GPU.error("device that does not exist", str(error), "set device in the kit's local/fedmepd.json")
        return
    need = memory_need(settings, modalities)
    if device.type == "cuda":
        gpu, need = gpu_need(settings, modalities)
        yield _check_gpu(computer, device, gpu)
    elif training.batch * training.crop**3 * settings.network.width >= _LARGE_STEP:
        text = "the processor trains; at width 16 with crops of 80 that took 2 to 13 s a step on 2 cores"
        yield _GPU.warning("none, for a large job", text, "use a machine with a GPU, or expect long rounds")
    else:
        yield _GPU.ok("none needed", "the processor trains")
    yield _check_memory(computer, need)


def _check_gpu(computer: Computer, device: torch.device, need: int) -> Check:
    name, total, free = computer.gpu(device)
    text = f"{name}: {_gib(free)} of {_gib(total)} free; up to {_gib(need)} needed"
    if need > total:
        return _GPU.error("too little GPU memory", text, f"use a larger GPU, {_SMALLER}")
    if need > free:
        return _GPU.warning("GPU memory in use", text, "end what else computes there (nvidia-smi shows it), or wait")
    return _GPU.ok("enough", text)


def _check_memory(computer: Computer, need: int) -> Check:
    total, free = computer.memory()
    text = f"{_gib(free)} of {_gib(total)} free; up to {_gib(need)} needed"
    if need > total:
        return _MEMORY.error("too little memory", text, f"use a machine with more, {_SMALLER}")
    if need > free:
        return _MEMORY.warning("memory in use", text, "end what else runs here, or wait")
    return _MEMORY.ok("enough", text)


def check_disk(
    kit: Kit, expected: Expected, machine: SiteSettings, looked: Looked, computer: Computer
) -> Iterator[Check]:
    """Compares free space with what a run leaves in the kit's folder, and prepared cases in the cache folder.

    Args:
        kit: its folder is the one that FLARE works in.
        expected: with the job's settings.
        machine: the site's settings, with the cache folder.
        looked: the sizes of the site's cases.
        computer: the machine itself.
    """
    needs = {
        "the kit's folder": (kit.folder, run_need(expected.settings, looked.modalities, max(1, looked.networks))),
        "the cache folder": (machine.cache, prepared_need(looked.voxels)),
    }
    disks: dict[int, list[str]] = {}
    for name, (folder, _) in needs.items():
        disks.setdefault(computer.disk(folder), []).append(name)
    for names in disks.values():
        folders = [needs[name][0] for name in names]
        yield _check_disk(names, folders, sum(needs[name][1] for name in names), computer.free_space(folders[0]))
    for name, (folder, _) in needs.items():
        if not computer.writable(folder):
            advice = "give it to the account that starts the kit, or start it with another"
            yield _DISK.error("folder that cannot be written", f"{name}, {folder}", advice)


def _check_disk(names: list[str], folders: list[Path], need: int, free: int) -> Check:
    text = f"{_gib(free)} free, up to {_gib(need)} needed, for {' and '.join(names)} ({', '.join(map(str, folders))})"
    if need > free:
        advice = "free space, unpack the kit on another disk, or set cache in the kit's local/fedmepd.json to one"
        return _DISK.error("too little space", text, advice)
    if need * 2 > free:
        return _DISK.warning("little space", text, "a second run kept beside the first may not fit")
    return _DISK.ok("enough", text)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
