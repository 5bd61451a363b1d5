"""FedMEPD on NVIDIA FLARE: federated brain tumour segmentation across sites with different MRI modalities."""

from importlib.metadata import PackageNotFoundError, version

from fedmepd.surroundings import settle

settle()

try:
    __version__ = version("fedmepd")
except PackageNotFoundError:  # the package was copied into a job instead of installed
    __version__ = "0.2.0"


def __getattr__(name: str):
    # Late, so that `fedmepd --help` and FLARE's parent processes do not wait for torch.
    if name == "load_model":
        from fedmepd.training.checkpoints import load_model

        return load_model
    raise AttributeError(f"module 'fedmepd' has no attribute {name!r}")


__all__ = ["__version__", "load_model"]
