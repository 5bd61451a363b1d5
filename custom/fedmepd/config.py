"""Settings of a job: one validated object; :mod:`fedmepd.job_settings` makes it from a preset and changes.

The server reads them from the job and sends them to every site, so that there is one owner. The settings of a machine
(data folder, device) are in :mod:`fedmepd.site_settings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from fedmepd.closest import one_of
from fedmepd.errors import SettingsError, explain
from fedmepd.tasks.find import DEFAULT, task_names

SMALLEST_BFLOAT16_CROP = 24
MOST_ROUNDS = 100_000
# Of a step with differential privacy, in clips. Less promises next to nothing, and its account takes gigabytes.
LEAST_NOISE = 0.2
# Thirty days, in seconds.
LONGEST_WAIT = 30 * 24 * 3600

# The participant that has all modalities. Its data folder, seeds and results carry this name wherever it runs.
FUSION_SITE = "fusion"


# Names of sites and runs become names of files and folders.
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME_OR_NONE = SITE_NAME + "|^$"
_A_NAME = "at most 64 letters, digits, dots, underscores and hyphens, the first of them a letter or a digit"


def cohort_name(phantom: bool | str | None) -> str:
    """Returns the name of the cohort of phantoms that the setting ``data.phantom`` chooses."""
    return phantom if isinstance(phantom, str) else "mild"


def _or_expected(check: ValidatorFunctionWrapHandler, value: Any, expected: str) -> Any:
    """Returns a checked value; what is refused is told in words where pydantic's own would be a riddle."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(f"expected {expected}") from None


class Section(BaseModel):
    """A part of the settings: unknown keys are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkSettings(Section):
    """The network."""

    width: int = Field(16, ge=4, le=64, multiple_of=4, description="channels at full resolution")
    shared_encoder: bool = Field(False, description="one encoder for all modalities (ablation; FedAvg of the paper)")
    affine: bool = Field(False, description="normalisations have a scale and a shift of their own; RFNet's have not")
    modality_norms: bool = Field(
        False,
        description="the shared encoder has a scale and a shift for each modality; needs shared_encoder and affine",
    )

    @model_validator(mode="after")
    def _norms_have_an_encoder(self) -> NetworkSettings:
        if self.modality_norms and not (self.shared_encoder and self.affine):
            raise ValueError("modality_norms needs shared_encoder true and affine true")
        return self


class AggregationSettings(Section):
    """How the sites' updates become the global model."""

    min_sites: int = Field(2, ge=1, le=10_000, description="the job ends if fewer sites deliver an update in a round")
    round_timeout: float = Field(
        4 * 3600,
        ge=0,
        le=LONGEST_WAIT,
        description="longest time in seconds that a round waits for its sites; 0: no limit",
    )
    straggler_wait: float = Field(
        3600,
        ge=0,
        le=LONGEST_WAIT,
        description="seconds to wait for the others after more than half of the sites have answered; 0: no limit",
    )
    refusals: Literal["end", "leave_out"] = Field(
        "end",
        description="where a site cannot take part when the job starts, as with faulty data; end: no training starts; "
        "leave_out: the job starts without it, unless it is the fusion site",
    )
    norm_bound: float = Field(
        10,
        ge=0,
        le=1e6,
        description="an update more than this many times as large as the median is scaled down to it; 0: never",
    )
    trim: float = Field(
        0,
        ge=0,
        le=0.5,
        description="share of the sites whose changes of a weight are left out at either end, rounded up; 0: none; "
        "0.5: the median",
    )
    direction: float = Field(
        -1,
        ge=-1,
        le=0,
        description="an update is left out if its cosine with the median update is below this; -1: never",
    )
    wire_precision: Literal["float16", "float32"] = Field("float16", description="floating-point format on the wire")

    def robust(self) -> bool:
        """Whether the means are other than those of all updates."""
        return self.trim > 0 or self.direction > -1


class TrainingSettings(Section):
    """Local and fusion training."""

    crop: int = Field(80, ge=16, le=256, multiple_of=8, description="side of the training crops in voxels")
    batch: int = Field(1, ge=1, le=64, description="crops per step")
    local_epochs: int = Field(1, ge=1, le=100, description="epochs per round at every site")
    fusion_epochs: int = Field(1, ge=1, le=100, description="epochs per round at the fusion site")
    learning_rate: float = Field(2e-4, gt=0, le=10, description="learning rate of Adam in round 0")
    weight_decay: float = Field(1e-5, ge=0, le=10, description="L2 penalty of Adam")
    decay_power: float = Field(0.9, ge=0, le=10, description="power in learning rate * (1 - round/(rounds + 1))^power")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="arithmetic of convolutions; bfloat16 needs crops of 24 or more; auto: bfloat16 with such crops "
        "on hardware that supports it",
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of a site's process; 0: PyTorch's choice")
    fusion_threads: int = Field(0, ge=0, le=1024, description="CPU threads of the fusion site; 0: PyTorch's choice")

    @model_validator(mode="after")
    def _precision_fits_crop(self) -> TrainingSettings:
        # PyTorch 2.13 on a CPU: weight gradients of 3x3x3 convolutions over 2 voxels a side hold uninitialised memory
        # in bfloat16, and the coarsest of the network's levels has an eighth of the crop's side.
        if self.crop < SMALLEST_BFLOAT16_CROP and self.precision == "bfloat16":
            raise ValueError(f"precision bfloat16 needs crops of {SMALLEST_BFLOAT16_CROP} or more, crop is {self.crop}")
        return self

    def training_precision(self) -> str:
        """Returns the precision of training. Inference always uses the precision that is set."""
        return "float32" if self.crop < SMALLEST_BFLOAT16_CROP else self.precision


class AugmentationSettings(Section):
    """Random changes of the training crops."""

    tumour_share: float = Field(0.0, ge=0, le=1, description="share of crops centred on a voxel that is not background")
    rotation_degrees: float = Field(10, ge=0, le=180, description="largest rotation about each axis")
    intensity: float = Field(0.1, ge=0, lt=1, description="largest intensity shift (in standard deviations) and scale")
    flips: bool = Field(True, description="mirror crops along each axis with probability 0.5")


class EvaluationSettings(Section):
    """Sliding-window inference, and how often it is used for validation."""

    window: int = Field(80, ge=16, le=512, multiple_of=8, description="side of the inference window in voxels")
    overlap: float = Field(0.5, ge=0, le=0.9, description="share of a window that the next one covers again")
    every: int = Field(
        1, ge=1, le=MOST_ROUNDS, description="rounds from one validation to the next; the last round always validates"
    )
    pictures: bool = Field(
        True, description="a site draws its best, median and worst cases for itself; they never leave it"
    )
    cross_site: bool = Field(
        False, description="at the end, also test every model on every site's test cases, if the sites agree"
    )

    def windows(self, size: Sequence[int]) -> int:
        """Returns into how many windows MONAI cuts a volume.

        Args:
            size: of the volume in voxels.
        """
        # No window is larger than the volume.
        sides = [min(self.window, full) for full in size]
        steps = [max(1, int(side * (1 - self.overlap))) for side in sides]
        return math.prod(
            1 + math.ceil((full - side) / step) for full, side, step in zip(size, sides, steps, strict=True)
        )

    @classmethod
    def sliding(cls, window: int, overlap: float) -> EvaluationSettings:
        """Returns the settings of inference outside a job.

        Args:
            window: side of the inference window in voxels.
            overlap: share of a window that the next one covers again.

        Raises:
            SettingsError: one of them is out of bounds.
        """
        try:
            return cls(window=window, overlap=overlap)
        except ValidationError as error:
            raise SettingsError(explain(error, "sliding window", cls)) from error


class DataSettings(Section):
    """Which cases are used. Each site decides where they are stored."""

    phantom: bool | Literal["hospitals"] = Field(
        False,
        description="sites without a data folder make phantoms and train on them. true: the mild cohort, whose sites "
        "are much alike; hospitals: one whose sites differ as hospitals do",
    )
    train: float = Field(
        0.6, gt=0, le=1, description="share of a site's patients used for training, if no manifest decides"
    )
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share used to select the best model, if no manifest decides; the rest is for testing",
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="seed of the split into training, validation and test, if no manifest decides; null: `seed`. "
        "With it, runs of several seeds on patients' data test on the same cases",
    )
    fusion_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the fusion site's training cases that are used: how much a method needs them",
    )
    fusion_cases: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="number of the fusion site's training cases that are used, in place of a share; null: see "
        "fusion_share",
    )
    clip_percent: float = Field(
        0.0, ge=0, lt=10, description="percentage of the body's voxels whose intensity is clipped at either end"
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> DataSettings:
        if self.train + self.validation > 1 + 1e-9:
            raise ValueError("train + validation is above 1: nothing would be left to test on")
        return self

    def cohort(self, source: str) -> str:
        """Returns the name of the cohort that cases of a source belong to; empty where they are no job's phantoms."""
        return cohort_name(self.phantom) if source == "phantom" else ""

    @model_validator(mode="after")
    def _one_number_of_fusion_cases(self) -> DataSettings:
        if self.fusion_cases is not None and self.fusion_share < 1:
            raise ValueError("fusion_cases and fusion_share both say how many fusion cases are used: leave one out")
        return self

    @field_validator("phantom", mode="wrap")
    @classmethod
    def _known_cohort(cls, value: Any, check: ValidatorFunctionWrapHandler) -> bool | str:
        return _or_expected(check, value, f"true (the cohort {cohort_name(True)}), false or hospitals")


class FusionSettings(Section):
    """Which participant is the fusion site, that is, has the cases with all modalities."""

    site: str = Field(
        "",
        pattern=_NAME_OR_NONE,
        description="name of the site that has the fusion data and trains on them; empty: the server itself",
    )

    @field_validator("site", mode="wrap")
    @classmethod
    def _a_name(cls, value: Any, check: ValidatorFunctionWrapHandler) -> str:
        return _or_expected(check, value, _A_NAME)


class PrivacySettings(Section):
    """Differential privacy for the training patients of every participant."""

    epsilon: float = Field(
        0,
        ge=0,
        le=1000,
        description="budget of a participant for the whole run; when it is spent, the participant trains no further; "
        "0: no differential privacy",
    )
    delta: float = Field(
        1e-5, gt=0, lt=0.1, description="delta of the guarantee; has to be well below 1 / number of training patients"
    )
    clip: float = Field(
        1.0, gt=0, le=1e6, description="a patient's gradient in a step is scaled down to this norm where it is longer"
    )
    patients: int = Field(
        0, ge=0, le=10_000, description="patients in a step on average, each drawn by itself; 0: training.batch"
    )
    noise: float = Field(
        0,
        ge=0,
        le=1e4,
        description=f"standard deviation of the noise in a step, in clips, at least {LEAST_NOISE}; 0: as much as makes "
        "the budget last for all rounds",
    )
    vector_clip: float = Field(
        8.0,
        gt=0,
        le=1e6,
        description="norm to which a patient's class vectors are scaled down before they make anchors",
    )
    vector_share: float = Field(0.2, gt=0, lt=1, description="share of the fusion site's budget that its anchors take")

    @field_validator("noise")
    @classmethod
    def _noise_that_hides(cls, value: float) -> float:
        if 0 < value < LEAST_NOISE:
            raise ValueError(f"expected 0, or at least {LEAST_NOISE}")
        return value


class Settings(Section):
    """The settings that all methods have in common. The defaults are the paper's values.

    A method adds its own settings in a subclass (:attr:`fedmepd.methods.method.Method.settings`), of which
    :func:`fedmepd.job_settings.make_settings` returns an instance.
    """

    # What a method changes in a preset, in addition to what the preset is for all.
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    # Sections and keys of a method's smallest numbers of cases behind something that leaves a site.
    fewest_cases: ClassVar[tuple[tuple[str, str], ...]] = ()

    method: str = Field("fedmepd", description="method of the job; `fedmepd methods` lists all")
    task: str = Field(DEFAULT, description="images, classes and rules; `fedmepd tasks` lists them")
    run_name: str = Field(
        "",
        pattern=_NAME_OR_NONE,
        description="name of the run; a job with the same name continues it",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random number")
    rounds: int = Field(
        1000,
        ge=1,
        le=MOST_ROUNDS,
        description="rounds in which the sites train, after round 0, in which only the fusion site trains",
    )
    trials: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="configurations that were tried to find this one, itself included; for the results",
    )
    network: NetworkSettings = NetworkSettings()
    aggregation: AggregationSettings = AggregationSettings()
    fusion: FusionSettings = FusionSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings()
    privacy: PrivacySettings = PrivacySettings()

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        if value not in task_names():
            raise ValueError(f"unknown task: {one_of(value, task_names())}")
        return value

    @field_validator("run_name", mode="wrap")
    @classmethod
    def _a_run_name(cls, value: Any, check: ValidatorFunctionWrapHandler) -> str:
        return _or_expected(check, "" if value is None else value, _A_NAME)

    def with_fewest(self, cases: int) -> Settings:
        """Returns settings in which nothing leaves a site that fewer cases are behind, see :attr:`fewest_cases`."""
        changed = self
        for section, key in self.fewest_cases:
            part = getattr(changed, section)
            part = part.model_copy(update={key: max(cases, getattr(part, key))})
            changed = changed.model_copy(update={section: part})
        return changed

    def split_seed(self) -> int:
        """Returns the seed that decides which cases train, validate and test."""
        return self.seed if self.data.split_seed is None else self.data.split_seed

    def validation_is_due(self, round_number: int) -> bool:
        """Whether a round ends with a validation."""
        return round_number % self.evaluation.every == 0 or round_number == self.rounds


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings with changes."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key, {}), dict)
        merged[key] = merge(merged.get(key, {}), value) if nested else value
    return merged


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns a text for every setting that has changed: ``rounds was 20, now 60``.

    Args:
        before, now: settings as plain values, nested.
    """
    before, now = flattened(before), flattened(now)
    return [
        f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by their full names, such as ``training.crop``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
