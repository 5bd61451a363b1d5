"""The part of loading that is the same every time: read once, prepared, kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmepd.data.cases import Case
from fedmepd.data.fingerprints import fingerprints
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.modalities import BRATS

# To be raised by whoever changes what is kept in the cache.
_FORMAT = 2

# Voxels of the brain kept as centres of crops.
_CENTRES = 10_000

# BraTS' own orientation: axes point left, posterior, superior.
_ORIENTATION = "LPS"


class PreparedCases:
    """Cases, read and normalised: a sequence of dictionaries.

    Images are brought to BraTS' orientation; negative values, which interpolation leaves around the brain, become 0;
    the volume is cropped to the box around brain and label; every modality gets mean 0 and standard deviation 1
    over its non-zero voxels, and stays 0 outside. Kept in ``cache`` under the files' contents: a case that is moved, or
    only touched, is not prepared again.

    Each item holds ``image`` (M, X, Y, Z) float16, ``label`` (1, X, Y, Z) uint8 with classes, ``spacing`` (3,) in mm,
    and the flat indices of voxels to centre crops on: ``brain`` (a regular sample of the brain) and ``tumour`` (the
    classes that are not background; the same as ``brain`` in a case without any).

    Args:
        cases: labelled cases.
        cache: folder for the prepared volumes; made when missing, readable by its owner alone.
    """

    def __init__(self, cases: Sequence[Case], cache: Path):
        self.cases = list(cases)
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
            beside.append(_item(case, digests))
        self._data = {modalities: _dataset(beside, _prepare(modalities), cache) for modalities, beside in items.items()}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one case.

        Raises:
            DataError: a file has vanished or cannot be read any more, or the cache folder cannot be written.
        """
        modalities, place = self._places[index]
        try:
            return self._data[modalities][place]
        except (OSError, RuntimeError) as error:
            missing = next((file for file in self.cases[index].files if not file.is_file()), None)
            if missing is not None:
                raise _vanished(missing) from error
            # The files were readable when they were checked; a full disk is the likelier cause.
            raise _unwritable(self._cache, error) from error


def _fingerprints(cases: Sequence[Case], cache: Path) -> dict[Path, str]:
    try:
        return fingerprints([file for case in cases for file in case.files], cache / "fingerprints.json")
    except OSError as error:
        raise _vanished(Path(error.filename)) from error
    except FedMEPDError as error:
        raise _unwritable(cache, error) from error


def _item(case: Case, digests: dict[Path, str]) -> dict[str, Any]:
    return {
        **{modality: str(case.images[modality]) for modality in case.modalities},
        "label": str(case.label),
        "content": [_FORMAT, case.modalities, [digests[file] for file in case.files]],
    }


def _key(item: dict[str, Any]) -> bytes:
    """The name of an item's file in the cache."""
    return hashlib.sha256(json.dumps(item["content"]).encode()).hexdigest().encode()


def _dataset(items: list[dict[str, Any]], transform: Any, cache: Path) -> Any:
    from monai.data import PersistentDataset

    class RepairingDataset(PersistentDataset):
        """Makes an item again whose file in the cache is damaged; MONAI itself knows only some kinds of damage."""

        def _cachecheck(self, item_transformed: Any) -> Any:
            try:
                return super()._cachecheck(item_transformed)
            except (OSError, RuntimeError, EOFError):
                (self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt").unlink(missing_ok=True)
                return super()._cachecheck(item_transformed)

    return RepairingDataset(items, transform, cache, hash_func=_key)


def _prepare(modalities: tuple[str, ...]) -> Any:
    from monai import transforms as t

    files = [*modalities, "label"]
    return t.Compose(
        [
            t.LoadImaged(files, reader="NibabelReader", ensure_channel_first=True),
            t.Orientationd(files, axcodes=_ORIENTATION, labels=None),
            t.ConcatItemsd(modalities, "image"),
            t.ThresholdIntensityd("image", threshold=0, above=True, cval=0),
            t.ConcatItemsd(["image", "label"], "everything"),
            t.CropForegroundd(["image", "label"], source_key="everything", allow_smaller=True),
            t.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            t.MapLabelValued("label", list(BRATS.class_of_label), list(BRATS.class_of_label.values())),
            t.Lambda(_finish),
        ]
    )


def _finish(item: dict[str, Any]) -> dict[str, Any]:
    import torch

    spacing = item["label"].pixdim.clone()
    image = item["image"].as_tensor()
    label = item["label"].as_tensor().to(torch.uint8)
    brain = (image != 0).any(0).flatten().nonzero()[:, 0]
    tumour = label.flatten().nonzero()[:, 0]
    # A copy: of a view, torch would write all that it is a view of.
    centres = brain[:: max(1, len(brain) // _CENTRES)].clone()
    return {
        "image": image.half(),
        "label": label,
        "brain": centres,
        "tumour": tumour if len(tumour) else centres,
        "spacing": spacing,
    }


def _unwritable(cache: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot keep prepared cases in {cache}: {error}. Free space on that disk or set FEDMEPD_CACHE to another "
        "folder",
        public="the site's cases cannot be prepared, or not be kept in its cache folder",
    )


def _vanished(file: Path) -> DataError:
    return DataError(
        f"{file} was there when the run started and is gone: restore it, then start the run again",
        public="a file of the site's data has vanished",
    )
