"""A model as a MONAI bundle, for MONAI Label, MONAI Deploy and ``python -m monai.bundle run``.

The configuration is mostly MONAI's own transforms, so that it can be read and changed by whoever knows MONAI; the case
reader, the network and the inferer are from this package, which must be installed where the bundle runs.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from fedmepd import __version__
from fedmepd.errors import FedMEPDError, cannot_read
from fedmepd.exporting.network import buffer
from fedmepd.federation.model_card import FILE_NAME as CARD
from fedmepd.segmentation.limits import intended_use
from fedmepd.storage import save_tensors, write_json, write_text
from fedmepd.tasks.task import Task
from fedmepd.training.checkpoints import About, describe, model_task, read_model, trained_with

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_LICENCE = """\
The configuration in this bundle is licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0).

The weights in models/ were trained on the data of the site named in configs/metadata.json. Whether and how they may be
used is for that site to say; this file grants no right to them.
"""


def export_bundle(model: Path, out: Path, licence: Path | None = None) -> None:
    """Writes a bundle.

    Args:
        model: a checkpoint of this package.
        out: the folder to make.
        licence: text to put into the bundle instead of the default, which grants no right to the weights.

    Raises:
        CheckpointError: the file is not a model.
        FedMEPDError: ``out`` exists, or cannot be written.
    """
    about = describe(model)
    task = model_task(model, about)
    if out.exists():
        raise FedMEPDError(f"{out} exists already: choose another folder")
    text = _LICENCE if licence is None else _read(licence)
    content = read_model(model)
    anchors = {level: len(rows) for level, rows in content["anchors"].items()}
    write_json(out / "configs/inference.json", _inference(task, about, anchors))
    write_json(out / "configs/metadata.json", _metadata(task, about))
    write_text(out / "docs/README.md", _readme(task, about))
    write_text(out / "LICENSE", text)
    (out / "models").mkdir()
    # MONAI's tools load what they find under this key into the network; the tensors are stored once.
    weights = content["state"] | {buffer(level): rows for level, rows in content["anchors"].items()}
    save_tensors(out / "models/model.pt", content | {"model": weights})
    if (card := model.with_name(CARD)).is_file():
        shutil.copyfile(card, out / "docs" / CARD)


def _read(licence: Path) -> str:
    try:
        return licence.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FedMEPDError(cannot_read(licence, error, "the text of a licence")) from error


def _inference(task: Task, model: dict[str, Any], anchors: dict[str, int]) -> dict[str, Any]:
    modalities, about = model["modalities"], model["about"]
    labels = list(task.label_of_class(task.default_convention))
    # What a case is compared with before it is segmented.
    case = {"modalities": modalities, "trained_with": asdict(trained_with(about).that_matter(task))}
    case["phantoms"] = bool(about.get("phantoms"))
    clip = about.get("clip_percent", About.clip_percent)
    return {
        "imports": ["$import fedmepd", "$import fedmepd.data.intensities", "$import fedmepd.tasks.find"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        **{name: f"$@bundle_root + '/{name}.nii.gz'" for name in modalities},
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "precision": "auto",
        "label_values": labels,
        "datalist": [{name: f"@{name}" for name in modalities}],
        "network_def": {
            "_target_": "fedmepd.exporting.network.BundledNetwork",
            **{key: model[key] for key in ("modalities", "width", "calibration", "shared_encoder", "affine", "task")},
            "modality_norms": model["modality_norms"],
            "anchors": anchors,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": _preparing(task, case, clip),
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "fedmepd.exporting.inferer.WindowInferer",
            "modalities": modalities,
            "window": about.get("window", About.window),
            "overlap": about.get("overlap", About.overlap),
            "precision": "@precision",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                _back(task),
                {
                    "_target_": "MapLabelValued",
                    "keys": "pred",
                    "orig_labels": list(range(len(labels))),
                    "target_labels": "@label_values",
                },
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
                    "output_dtype": "$numpy.uint8",
                    "resample": False,
                    "separate_folder": False,
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": [
                {
                    "_target_": "CheckpointLoader",
                    "load_path": "$@bundle_root + '/models/model.pt'",
                    "load_dict": {"model": "@network"},
                    "map_location": "@device",
                }
            ],
        },
        "run": ["$@evaluator.run()"],
    }


def _preparing(task: Task, case: dict[str, Any], clip: float) -> list[dict[str, Any]]:
    """The transforms that read and prepare a case.

    Args:
        task: of the model.
        case: what the first transform has to know of a case.
        clip: percentage of the body's voxels to clip, at either end.
    """
    if task.resampled:
        ours = {"_target_": "fedmepd.exporting.inferer.PrepareCase", "task": task.name, "clip_percent": clip}
        return [ours | case]
    crop: dict[str, Any] = {
        "_target_": "CropForegroundd",
        "keys": "image",
        "source_key": "image",
        "allow_smaller": True,
    }
    clipping = {
        "_target_": "Lambdad",
        "keys": "image",
        "func": f"$lambda image: fedmepd.data.intensities.clip_intensities(image, {clip})",
    }
    body: dict[str, Any] = {
        "_target_": "ThresholdIntensityd",
        "keys": "image",
        "threshold": 0,
        "above": True,
        "cval": 0,
    }
    scaling: list[dict[str, Any]] = [
        *([clipping] if clip else []),
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
    ]
    if (task.foreground, task.intensity) != ("nonzero", "z-score"):
        # MONAI has no transform for these rules.
        rules, own = "$fedmepd.data.intensities", f"fedmepd.tasks.find.find_task({task.name!r})"
        body = {"_target_": "Compose", "transforms": f"{rules}.foreground({own})"}
        crop["select_fn"] = f"{rules}.kept({own})"
        scaling = [{"_target_": "Compose", "transforms": f"{rules}.normalisation({own}, {clip})"}]
    return [
        {"_target_": "fedmepd.exporting.inferer.LoadCase", **case},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS", "labels": None},
        body,
        crop,
        *scaling,
        # As in training, where prepared cases are kept in half precision.
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float16"},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ]


def _back(task: Task) -> dict[str, Any]:
    """The transform that brings classes back to the grid of the first image."""
    if task.resampled:
        return {"_target_": "fedmepd.exporting.inferer.OntoOwnGrid", "keys": "pred"}
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": True,
    }


def _metadata(task: Task, model: dict[str, Any]) -> dict[str, Any]:
    modalities, about = model["modalities"], model["about"]
    versions = {name: metadata.version(name) for name in ("monai", "torch", "numpy", "nibabel")}
    return {
        "schema": _SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported from round {about['round']} of {about['owner']}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].partition("+")[0],
        "numpy_version": versions["numpy"],
        "required_packages_version": {
            "fedmepd": __version__,
            "nibabel": versions["nibabel"],
            "pytorch-ignite": "0.5",
            "fire": "0.7",
        },
        "name": f"{task.title} from {' '.join(modalities)}",
        "task": f"Segmentation of {task.subject}",
        "description": f"Model of {about['owner']}, method {about['method']}, round {about['round']}",
        "authors": about["owner"],
        "copyright": "see LICENSE",
        "data_source": f"{'phantoms' if about.get('phantoms') else 'cases'} of {about['owner']}",
        "data_type": "nifti",
        "image_classes": f"channels {', '.join(modalities)}: {task.describe_intensities()}",
        "label_classes": task.describe_labels(),
        "pred_classes": task.describe_labels(),
        # As in the pictures of `fedmepd predict`.
        "label_colours": dict(
            zip(map(str, task.label_of_class(task.default_convention)[1:]), task.class_colours, strict=True)
        ),
        "eval_metrics": {"validation_mean_dice": (about["scores"] or {}).get("mdsc")} if about["scores"] else {},
        "intended_use": intended_use(about),
        "references": [
            "Liu et al., Federated Modality-specific Encoders and Partially Personalized Fusion Decoder for Multimodal "
            "Brain Tumor Segmentation, Medical Image Analysis 2025, doi 10.1016/j.media.2025.103759"
        ],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": task.imaging,
                    "num_channels": len(modalities),
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(place): name for place, name in enumerate(modalities)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(task.classes),
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {str(number): name for number, name in enumerate(task.classes)},
                }
            },
        },
    }


def _readme(task: Task, model: dict[str, Any]) -> str:
    modalities = model["modalities"]
    options = " ".join(f"--{name} {name.lower()}.nii.gz" for name in modalities)
    return f"""\
# {task.title} from {" ".join(modalities)}

**For {intended_use(model["about"])}.** Model of {model["about"]["owner"]}, round {model["about"]["round"]}.

    pip install pytorch-ignite fire                 # and the package fedmepd {__version__}
    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        {options} --output_dir seg

Input: {task.images}, one for each of {", ".join(modalities)}.
The segmentation is written to `seg/*_seg.nii.gz` in the first image's grid. Its values are {task.describe_labels()}.
`fedmepd predict` gives the same voxels. A warning says if a case is unlike those of the training.

MONAI Label takes the images of a case as one 4-D file with the channels {", ".join(modalities)}, in this order. It
needs label values without gaps: set `label_values` in configs/inference.json to {list(range(len(task.classes)))}.
"""
