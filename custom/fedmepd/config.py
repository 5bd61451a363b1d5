"""Settings of a job: one validated object, made from a preset and what the job's configuration overrides.

The server reads them from the job and sends them to every site, so that there is one owner. What belongs to a machine
(data folder, device) is no setting of the job; see :mod:`fedmepd.site_settings`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedmepd.errors import SettingsError
from fedmepd.tasks.find import DEFAULT, task_names

SMALLEST_BFLOAT16_CROP = 24

# The participant that has all modalities. Its data folder, seeds and results carry this name wherever it runs.
FUSION_SITE = "fusion"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkSettings(_Section):
    """The network."""

    width: int = Field(16, ge=4, le=64, multiple_of=4, description="channels at full resolution")
    shared_encoder: bool = Field(False, description="one encoder for all modalities (ablation; FedAvg of the paper)")


class CalibrationSettings(_Section):
    """Anchors of the fusion site and LACCA at the sites."""

    enabled: bool = Field(True, description="sites calibrate their features with the fusion site's anchors")
    residual: bool = Field(False, description="add LACCA's output to the feature; the paper replaces the feature")
    anchors_per_class: int = Field(4, ge=1, le=64, description="clusters per class, N_k in the paper")
    anchor_ema: float = Field(0.999, ge=0, lt=1, description="share of the old anchor kept in each round")
    anchor_cases: int = Field(3, ge=1, description="fewest cases of the fusion site behind an anchor")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the attention weights in training")


class AggregationSettings(_Section):
    """How the sites' updates become the global model."""

    server_share: float = Field(0.3, ge=0, le=1, description="share of the server's filter kept, lambda in the paper")
    min_sites: int = Field(2, ge=1, description="fewer updates than this in a round end the job")
    round_timeout: float = Field(
        4 * 3600, ge=0, description="seconds a round waits for its sites at most; 0: until all have answered"
    )
    straggler_wait: float = Field(
        3600, ge=0, description="seconds a round goes on waiting once more than half of its sites are in; 0: no limit"
    )
    norm_bound: float = Field(
        10, ge=0, description="a larger update, in sizes of the median site's, is scaled down to that size; 0: never"
    )
    wire_precision: Literal["float16", "float32"] = Field("float16", description="floating-point format on the wire")


class PersonalizationSettings(_Section):
    """When decoder filters become personal."""

    patience: int | None = Field(
        10, ge=0, le=255, description="opposing rounds until a filter is personal; 0: all from the start; null: never"
    )
    warmup_rounds: int = Field(30, ge=0, description="rounds before personalization starts")
    weight_ema: float = Field(0.95, ge=0, le=1, description="share of the old aggregation weight H kept in each round")


class TrainingSettings(_Section):
    """Local and fusion training."""

    crop: int = Field(80, ge=16, multiple_of=8, description="side of the training crops in voxels")
    batch: int = Field(1, ge=1, description="crops per step")
    local_epochs: int = Field(1, ge=1, description="epochs a round at every site")
    fusion_epochs: int = Field(1, ge=1, description="epochs a round at the fusion site")
    learning_rate: float = Field(2e-4, gt=0, description="of Adam, in round 0")
    weight_decay: float = Field(1e-5, ge=0, description="L2 penalty of Adam")
    decay_power: float = Field(0.9, ge=0, description="learning rate * (1 - round/(rounds + 1))^power")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="arithmetic of convolutions; bfloat16 needs crops of 24 or more; auto: bfloat16 with such crops "
        "where the hardware has it",
    )
    threads: int = Field(0, ge=0, description="CPU threads of a site's process; 0: PyTorch's choice")
    fusion_threads: int = Field(0, ge=0, description="CPU threads of the fusion site; 0: PyTorch's choice")
    modality_dropout: bool = Field(
        True, description="fusion_only: train on a random non-empty subset of the modalities in each step"
    )

    @model_validator(mode="after")
    def _precision_fits_crop(self) -> TrainingSettings:
        # PyTorch 2.13 on a CPU: weight gradients of 3x3x3 convolutions over 2 voxels a side hold uninitialised memory
        # in bfloat16, and the coarsest of the network's levels has an eighth of the crop's side.
        if self.crop < SMALLEST_BFLOAT16_CROP and self.precision == "bfloat16":
            raise ValueError(f"precision bfloat16 needs crops of {SMALLEST_BFLOAT16_CROP} or more, crop is {self.crop}")
        return self

    def training_precision(self) -> str:
        """The precision to train in; inference may always use the one that is set."""
        return "float32" if self.crop < SMALLEST_BFLOAT16_CROP else self.precision


class AugmentationSettings(_Section):
    """Random changes of the training crops."""

    tumour_share: float = Field(0.0, ge=0, le=1, description="share of crops centred on a tumour voxel")
    rotation_degrees: float = Field(10, ge=0, le=180, description="largest rotation about each axis")
    intensity: float = Field(0.1, ge=0, lt=1, description="largest intensity shift (in standard deviations) and scale")
    flips: bool = Field(True, description="mirror crops along each axis, half of the time")


class EvaluationSettings(_Section):
    """Sliding-window inference, and how often it is used to validate."""

    window: int = Field(80, ge=16, multiple_of=8, description="side of the inference window in voxels")
    overlap: float = Field(0.5, ge=0, lt=1, description="share of a window that the next one covers again")
    every: int = Field(1, ge=1, description="rounds from one validation to the next; the last round always validates")
    cross_site: bool = Field(
        False, description="at the end, also test every model on every site's test cases, where the sites agree"
    )


class DataSettings(_Section):
    """Which cases are used. Where they lie is each site's own affair."""

    phantom: bool = Field(False, description="sites without a data folder make and use the phantom cohort")
    train: float = Field(
        0.6, gt=0, le=1, description="share of a site's patients used for training, where no manifest says which"
    )
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share used to select the best model; with train at most 1, the rest is for testing",
    )
    clip_percent: float = Field(
        0.0, ge=0, lt=10, description="percentage of the brain's voxels whose intensity is cut off, at either end"
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> DataSettings:
        if self.train + self.validation > 1 + 1e-9:
            raise ValueError("train + validation is above 1: nothing would be left to test on")
        return self


class Settings(_Section):
    """Everything that a job decides, the paper's values as defaults.

    Raises:
        SettingsError: from :meth:`make`, when a key is unknown or a value is out of bounds; the message names the key.
    """

    method: Literal["fedmepd", "local", "fedavg", "fusion_only"] = Field(
        "fedmepd",
        description="fedmepd, or what it is compared with; local: no exchange; fedavg: the whole network averaged; "
        "fusion_only: trained at the fusion site alone",
    )
    task: str = Field(DEFAULT, description="images, classes and rules; `fedmepd tasks` lists them")
    run_name: str = Field(
        "", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$|^$", description="name by which a run is resumed"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of every random number")
    rounds: int = Field(
        1000, ge=1, description="rounds in which the sites train; round 0, at the fusion site, comes before"
    )
    network: NetworkSettings = NetworkSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    aggregation: AggregationSettings = AggregationSettings()
    personalization: PersonalizationSettings = PersonalizationSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings()

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        if value not in task_names():
            raise ValueError(f"unknown task: expected one of {', '.join(task_names())}")
        return value

    @field_validator("run_name", mode="before")
    @classmethod
    def _no_name(cls, value: Any) -> Any:
        return "" if value is None else value

    @classmethod
    def make(cls, preset: str = "paper", overrides: dict[str, Any] | None = None) -> Settings:
        """Returns the settings of ``preset``, changed by ``overrides`` (nested like the settings themselves)."""
        if preset not in PRESETS:
            raise SettingsError(f"unknown preset {preset!r}: expected one of {', '.join(PRESETS)}")
        if overrides is not None and not isinstance(overrides, dict):
            raise SettingsError(f"settings: expected an object of keys and values, got {type(overrides).__name__}")
        try:
            return cls.model_validate(_merge(PRESETS[preset], overrides or {}))
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key, {}), dict)
        merged[key] = _merge(merged.get(key, {}), value) if nested else value
    return merged


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown setting {key}: expected one of {', '.join(_keys_beside(problem['loc']))}")
        else:
            lines.append(f"setting {key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(lines)


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(model.model_fields)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The paper's method scaled to the phantom cohort and to a few dozen rounds (algorithm section 6).
    "phantom": {
        "rounds": 20,
        "network": {"width": 8},
        "calibration": {"residual": True, "anchor_ema": 0.9, "dropout": 0.0},
        "aggregation": {"min_sites": 1, "round_timeout": 900, "straggler_wait": 300},
        "personalization": {"patience": 4, "warmup_rounds": 5},
        "training": {
            "crop": 32,
            "batch": 2,
            "learning_rate": 4e-3,
            "weight_decay": 0.0,
            "threads": 1,
            "fusion_threads": 1,
        },
        "augmentation": {"tumour_share": 0.7, "rotation_degrees": 0, "intensity": 0},
        "evaluation": {"window": 48, "every": 5},
        "data": {"phantom": True, "train": 0.5, "validation": 0.125},
    },
}
