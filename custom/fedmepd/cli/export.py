"""The commands ``fedmepd export ...``: a model for other software."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedmepd.cli.terminal import warn


def add_export_commands(export: argparse._SubParsersAction) -> None:
    """Adds them to the parser of ``fedmepd export``."""
    bundle = _command(
        export,
        "bundle",
        "write a MONAI bundle, for MONAI Label, MONAI Deploy and `python -m monai.bundle run`",
        "folder to make",
        _bundle,
    )
    bundle.add_argument(
        "--licence",
        type=Path,
        help="text for the bundle's LICENSE; default: a text that grants no right to the weights",
    )
    for name, what in (("torchscript", "TorchScript"), ("onnx", "ONNX")):
        command = _command(
            export,
            name,
            f"write the network for one inference window as {what}, and check that it computes the same",
            "file to write",
            _window,
        )
        command.add_argument(
            "--window", type=int, metavar="VOXELS", help="side of the window; default: that of the model's job"
        )
        command.set_defaults(kind=name)


def _command(topics: argparse._SubParsersAction, name: str, help: str, out: str, run) -> argparse.ArgumentParser:
    parser = topics.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.add_argument("--model", type=Path, required=True, help="model of a site or of the server")
    parser.add_argument("out", type=Path, help=out)
    parser.set_defaults(run=run)
    return parser


def _tell(options: argparse.Namespace, what: str) -> None:
    """Says what is being written from which model: it takes a while."""
    from fedmepd.training.checkpoints import describe

    content = describe(options.model)
    about = content["about"]
    model = (
        f"model of {about['owner']}, {about['method']}, round {about['round']}, from {' '.join(content['modalities'])}"
    )
    print(f"{options.model}: {model}\n{what}", flush=True)


def _bundle(options: argparse.Namespace) -> None:
    from fedmepd.exporting.bundle import export_bundle

    _warn_of_phantoms(options)
    _tell(options, "writing a MONAI bundle: weights, configuration, metadata, licence, model card")
    export_bundle(options.model, options.out, options.licence)
    print(f"wrote {options.out}: {options.out / 'docs/README.md'} says how to run it")


def _warn_of_phantoms(options: argparse.Namespace) -> None:
    from fedmepd.segmentation.limits import ON_PHANTOMS
    from fedmepd.training.checkpoints import describe

    if describe(options.model)["about"].get("phantoms"):
        warn(f"{options.model} was {ON_PHANTOMS}: what it marks in a patient means nothing")


def _window(options: argparse.Namespace) -> None:
    from fedmepd.exporting import window

    _warn_of_phantoms(options)
    side = f"{options.window} voxels" if options.window else "the size that the model's job used"
    _tell(options, f"tracing the network for one window of {side}, then comparing both on random images")
    write = {"torchscript": window.export_torchscript, "onnx": window.export_onnx}[options.kind]
    difference = write(options.model, options.out, options.window)
    print(f"wrote {options.out}: probabilities differ from the model's by at most {difference:.1g}")
