"""The part of loading that is the same every time: cases are read once, prepared and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.grids import frame_spacing, into_frame
from fedmepd.data.intensities import foreground, kept, normalisation
from fedmepd.data.resampling import Grid, network_grid, onto
from fedmepd.data.volumes import VolumeError, nearest_whole, read_volumes, without_nan_outside
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.tasks.labels import IGNORE
from fedmepd.tasks.task import Task

# Raise this number when the content of the cache changes; the second one if it changes only for cases with voxels that
# their labels leave out.
_FORMAT, _FORMAT_LEFT_OUT = 5, 1

# Voxels of the brain kept as centres of crops.
_CENTRES = 10_000


class PreparedCases:
    """Cases, read and normalised: a sequence of dictionaries.

    Images are brought to BraTS' orientation; negative values, which interpolation leaves around the brain, become 0;
    the volume is cropped to the box around the task's foreground (the brain) and label; every modality is normalised
    over its foreground as the task says, and is 0 outside. If the task resamples, every image is normalised first, on
    its own grid, and then brought to the network's (:mod:`fedmepd.data.resampling`), and what the label does not cover
    is left out. The key in ``cache`` is the files' contents: a case that is moved, or only touched, is not prepared
    again.

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
            modalities: _dataset(beside, _prepare(beside[0]["case"].task, clip_percent), cache)
            for modalities, beside in items.items()
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
    content = [_FORMAT, volumes, classes, task.foreground, task.intensity, clip_percent]
    content += [task.foreground_share] if task.foreground_share else []
    content += [task.voxel_mm] if task.resampled else []
    if classes is not None and (task.resampled or IGNORE in dict(classes).values()):
        content.append(_FORMAT_LEFT_OUT)
    return {"case": case, "content": content}


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
        return _prepare(case.task, clip_percent)({"case": case})
    except RuntimeError as error:
        # MONAI wraps what a transform raises.
        if isinstance(error.__cause__, (VolumeError, OSError)):
            raise _changed(case, error.__cause__) from error
        raise


def _prepare(task: Task, clip_percent: float) -> Any:
    from monai import transforms as t

    if task.resampled:
        return t.Compose([t.Lambda(lambda item: _read_on_any_grids(item["case"], clip_percent)), *_cropping(task)])
    reading = [t.Lambda(lambda item: read_case(item["case"])), *foreground(task)]
    return t.Compose([*reading, *_cropping(task, normalisation(task, clip_percent))])


def _cropping(task: Task, scaling: Sequence[Callable] = ()) -> list[Callable]:
    """From images and label on the network's grid to an item of :class:`PreparedCases`."""
    from monai import transforms as t

    crop = t.CropForegroundd(["image", "label"], source_key="everything", select_fn=kept(task), allow_smaller=True)
    return [t.Lambda(_with_everything), crop, *scaling, t.Lambda(_finish)]


def _with_everything(item: dict[str, Any]) -> dict[str, Any]:
    """Adds images and label together, without the voxels that the label leaves out, which need not be kept."""
    import torch

    label = item["label"]
    return {**item, "everything": torch.cat([item["image"], label * (label != IGNORE)])}


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


def _read_on_any_grids(case: Case, clip_percent: float) -> dict[str, Any]:
    task, images, label = case.task, [], None
    for kind, path, channel in case.volumes:
        read = read_volumes(path, bool(case.channels) and kind != LABEL)
        values = read.values if channel is None else read.values[..., channel]
        if kind == LABEL:
            label = classes_of_label(task, values, case.convention), read.affine
        else:
            images.append((without_nan_outside(values), read.affine))
    return _on_network_grid(task, images, label, clip_percent)


Placed = tuple[np.ndarray, np.ndarray]


def prepare_images(task: Task, images: Sequence[Placed], clip_percent: float) -> tuple[dict[str, Any], Grid]:
    """Prepares images of a task that resamples.

    Args:
        task: of the images.
        images: values (X, Y, Z) and affine of each; the first one decides where the network's grid lies.
        clip_percent: see :class:`PreparedCases`.

    Returns:
        what an item of :class:`PreparedCases` holds, and where its voxels lie.
    """
    from monai import transforms as t

    item = t.Compose(_cropping(task))(_on_network_grid(task, images, None, clip_percent))
    grid = network_grid(Grid(images[0][0].shape, images[0][1]), task.voxel_mm)
    return item, grid.box(item["corner"].tolist(), item["image"].shape[1:])


def _on_network_grid(task: Task, images: Sequence[Placed], label: Placed | None, clip_percent: float) -> dict[str, Any]:
    """Normalises every image on its own grid, and brings all to the network's; returns the like of :func:`read_case`.

    Args:
        task: of the images.
        images: values (X, Y, Z) and affine of each.
        label: class numbers and affine, or None.
        clip_percent: see :class:`PreparedCases`.
    """
    import torch
    from monai import transforms as t
    from monai.data import MetaTensor

    normalise = t.Compose([*foreground(task), *normalisation(task, clip_percent)])
    grid = network_grid(Grid(images[0][0].shape, images[0][1]), task.voxel_mm)
    seen = []
    for values, affine in images:
        image = normalise({"image": torch.from_numpy(values.astype(np.float32)[None])})["image"]
        seen.append(onto(image[0].numpy(), affine, grid, linear=True))
    classes = np.zeros(grid.shape, dtype=np.uint8)
    if label is not None:
        # Of what the label does not cover, nobody has said that it is background.
        classes = onto(*label, grid, linear=False, outside=IGNORE)
    return {
        "image": MetaTensor(np.stack(seen)),
        "label": MetaTensor(classes[None]),
        "spacing": torch.tensor(task.voxel_mm),
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
