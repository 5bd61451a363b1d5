"""The part of loading that is the same every time: cases are read once, prepared and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.grids import frame_spacing, into_frame
from fedmepd.data.volumes import VolumeError, nearest_whole, read_volumes, without_nan_outside
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.tasks.labels import IGNORE
from fedmepd.tasks.task import Task

# Raise this number when the content of the cache changes.
_FORMAT = 5

# Voxels of the brain kept as centres of crops.
_CENTRES = 10_000


class PreparedCases:
    """Cases, read and normalised: a sequence of dictionaries.

    Images are brought to BraTS' orientation; negative values, which interpolation leaves around the brain, become 0;
    the volume is cropped to the box around brain and label; every modality gets mean 0 and standard deviation 1
    over its non-zero voxels, and stays 0 outside. The key in ``cache`` is the files' contents: a case that is moved, or
    only touched, is not prepared again.

    Each item holds ``image`` (M, X, Y, Z) float16, ``label`` (1, X, Y, Z) uint8 with classes (all background without a
    label), ``spacing`` (3,) in mm, ``corner`` (3,), the box's first voxel in the frame of :mod:`fedmepd.data.grids`,
    and the flat indices of voxels to centre crops on: ``brain`` (a regular sample of the brain) and ``tumour`` (the
    classes that are not background; the same as ``brain`` in a case without any).

    Args:
        cases: cases; those with labels have a convention.
        cache: folder for the prepared volumes; made when missing, readable by its owner alone.
        clip_percent: percentage of the brain's voxels whose intensities are clipped at either end before mean and
            standard deviation are computed.
    """

    def __init__(self, cases: Sequence[Case], cache: Path, clip_percent: float = 0.0):
        self.cases = list(cases)
        unknown = next((case for case in self.cases if case.label is not None and case.convention is None), None)
        if unknown is not None:
            raise DataError(
                f"case {unknown.name}: it is not known how the values of {unknown.label} are to be read: run "
                "`fedmepd data init` with --labels",
                public="the convention of the site's labels is not known",
            )
        try:
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(cache, error) from error
        self._cache = cache
        digests = _fingerprints(self.cases, cache)
        # Every modality subset has transforms, and so a data set, of its own.
        items: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self._places = []
        for case in self.cases:
            beside = items.setdefault(case.modalities, [])
            self._places.append((case.modalities, len(beside)))
            beside.append(_item(case, digests, clip_percent))
        self._data = {
            modalities: _dataset(beside, _prepare(clip_percent), cache) for modalities, beside in items.items()
        }

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one case.

        Raises:
            DataError: a file has vanished, or cannot be read any more, or the cache folder cannot be written.
        """
        modalities, place = self._places[index]
        try:
            return self._data[modalities][place]
        except (OSError, RuntimeError) as error:
            missing = next((file for file in self.cases[index].files if not file.is_file()), None)
            if missing is not None:
                raise _vanished(missing) from error
            # MONAI wraps what a transform raises.
            if isinstance(error.__cause__, VolumeError):
                raise _changed(self.cases[index], error.__cause__) from error
            # The files were readable when they were checked; a full disk is the likelier cause.
            raise _unwritable(self._cache, error) from error


def _fingerprints(cases: Sequence[Case], cache: Path) -> dict[Path, str]:
    try:
        return fingerprints([file for case in cases for file in case.files], cache / "fingerprints.json")
    except OSError as error:
        raise _vanished(Path(error.filename)) from error
    except FedMEPDError as error:
        raise _unwritable(cache, error) from error


def _item(case: Case, digests: dict[Path, str], clip_percent: float) -> dict[str, Any]:
    task = case.task
    classes = None if case.label is None else sorted(task.conventions[case.convention].classes.items())
    volumes = [[kind, digests[path], channel] for kind, path, channel in case.volumes]
    return {"case": case, "content": [_FORMAT, volumes, classes, task.foreground, task.intensity, clip_percent]}


def _key(item: dict[str, Any]) -> bytes:
    """The name of an item's file in the cache."""
    return hashlib.sha256(json.dumps(item["content"]).encode()).hexdigest().encode()


def _dataset(items: list[dict[str, Any]], transform: Any, cache: Path) -> Any:
    from monai.data import PersistentDataset

    class RepairingDataset(PersistentDataset):
        """Prepares an item again if its file in the cache is damaged; MONAI itself detects only some kinds of
        damage.
        """

        def _cachecheck(self, item_transformed: Any) -> Any:
            try:
                return super()._cachecheck(item_transformed)
            except (OSError, RuntimeError, EOFError):
                (self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt").unlink(missing_ok=True)
                return super()._cachecheck(item_transformed)

    return RepairingDataset(items, transform, cache, hash_func=_key)


def prepare_case(case: Case, clip_percent: float = 0.0) -> dict[str, Any]:
    """Reads and prepares one case exactly as :class:`PreparedCases` does, without a cache.

    Returns:
        what an item of :class:`PreparedCases` holds.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        return _prepare(clip_percent)({"case": case})
    except RuntimeError as error:
        # MONAI wraps what a transform raises.
        if isinstance(error.__cause__, (VolumeError, OSError)):
            raise _changed(case, error.__cause__) from error
        raise


def _prepare(clip_percent: float) -> Any:
    from monai import transforms as t

    return t.Compose(
        [
            t.Lambda(lambda item: read_case(item["case"])),
            t.ThresholdIntensityd("image", threshold=0, above=True, cval=0),
            t.ConcatItemsd(["image", "label"], "everything"),
            t.CropForegroundd(["image", "label"], source_key="everything", allow_smaller=True),
            *(
                [t.Lambda(lambda item: item | {"image": clip_intensities(item["image"], clip_percent)})]
                if clip_percent
                else []
            ),
            t.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            t.Lambda(_finish),
        ]
    )


def read_case(case: Case) -> dict[str, Any]:
    """Reads a complete case, unchanged except that it is turned into the frame of :mod:`fedmepd.data.grids`.

    Returns:
        ``image`` (M, X, Y, Z) float32, ``label`` (1, X, Y, Z) uint8 with classes, ``spacing`` (3,) in mm.

    Raises:
        VolumeError: a file cannot be read.
    """
    import torch
    from monai.data import MetaTensor

    files = {path: read_volumes(path, bool(case.channels) and path != case.label) for path in case.files}
    found = {}
    # All files of a case lie on one grid, so they are turned alike: where two axes point equally near, rounding of a
    # single file's affine would decide.
    first = files[case.files[0]]
    for kind, path, channel in case.volumes:
        values = files[path].values if channel is None else files[path].values[..., channel]
        found[kind] = into_frame(values if kind == LABEL else without_nan_outside(values), first.affine)
    images = np.stack([found[modality] for modality in case.modalities]).astype(np.float32)
    label = np.zeros(images.shape[1:], dtype=np.uint8)
    if case.label is not None:
        label = classes_of_label(case.task, found[LABEL], case.convention)
    return {
        "image": MetaTensor(images),
        "label": MetaTensor(label[None]),
        "spacing": torch.tensor(frame_spacing(first.affine)),
    }


def classes_of_label(task: Task, values: np.ndarray, convention: str) -> np.ndarray:
    """Returns the class numbers, uint8, of a label file's values (X, Y, Z); background where they are unknown.

    Voxels that the label leaves out are :data:`~fedmepd.tasks.labels.IGNORE`; of classes that it does not tell apart,
    it is the smallest.
    """
    classes, values = np.zeros(values.shape, dtype=np.uint8), nearest_whole(values)
    for value, number in task.conventions[convention].classes.items():
        classes[values == value] = number
    return classes


def clip_intensities(image: Any, percent: float) -> Any:
    """Clips the values of every modality's brain to percentiles; 0 stays 0.

    Args:
        image: (M, X, Y, Z), changed in place.
        percent: of the brain's voxels, at either end.
    """
    for channel in image:
        inside = channel[channel > 0]
        if len(inside):
            low, high = np.percentile(inside.numpy(), (percent, 100 - percent))
            channel[channel > 0] = inside.clamp(float(low), float(high))
    return image


def _finish(item: dict[str, Any]) -> dict[str, Any]:
    import torch

    image = item["image"].as_tensor()
    # Copies, because torch writes a view together with the whole tensor behind it.
    label = item["label"].as_tensor().clone(memory_format=torch.contiguous_format)
    brain = (image != 0).any(0).flatten().nonzero()[:, 0]
    tumour = ((label != 0) & (label != IGNORE)).flatten().nonzero()[:, 0]
    centres = brain[:: max(1, len(brain) // _CENTRES)].clone()
    return {
        "image": image.half(),
        "label": label,
        "brain": centres,
        "tumour": tumour if len(tumour) else centres,
        "spacing": item["spacing"],
        "corner": torch.as_tensor(item["foreground_start_coord"]),
    }


def _changed(case: Case, error: Exception) -> DataError:
    return DataError(
        f"a file of case {case.name} cannot be read any more: {error}. Restore it, then start the run again",
        public="a file of the site's data cannot be read any more",
    )


def _unwritable(cache: Path, error: Exception) -> DataError:
    # MONAI writes a prepared case there first, and hides which of the two was full.
    temporary = Path(tempfile.gettempdir())
    return DataError(
        f"cannot keep prepared cases in {cache}, which has {_free(cache)} free, by way of {temporary}, which has "
        f"{_free(temporary)}: {error}. Free space there, or set FEDMEPD_CACHE or TMPDIR to another folder",
        public="the site's cases cannot be prepared, or not be kept in its cache folder",
    )


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB"
    except OSError as error:
        return f"nothing ({error.strerror})"


def _vanished(file: Path) -> DataError:
    return DataError(
        f"{file} was there when the run started and is gone: restore it, then start the run again",
        public="a file of the site's data has vanished",
    )
