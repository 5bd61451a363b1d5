from __future__ import annotations

import json
from typing import Any

import pytest

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.errors import SettingsError
from fedmepd.job_settings import PRESETS, make_settings


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


# Every row is a statement of the paper (algorithm sections 1 to 3).
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "fedmepd"),
        ("rounds", 1000),
        ("network.width", 16),
        ("network.shared_encoder", False),
        ("calibration.enabled", True),
        ("calibration.residual", False),
        ("calibration.anchors_per_class", 4),
        ("calibration.anchor_ema", 0.999),
        ("calibration.dropout", 0.1),
        ("aggregation.server_share", 0.3),
        ("personalization.patience", 10),
        ("personalization.warmup_rounds", 30),
        ("personalization.weight_ema", 0.95),
        ("training.crop", 80),
        ("training.batch", 1),
        ("training.local_epochs", 1),
        ("training.fusion_epochs", 1),
        ("training.learning_rate", 2e-4),
        ("training.weight_decay", 1e-5),
        ("training.decay_power", 0.9),
        ("augmentation.rotation_degrees", 10),
        ("augmentation.intensity", 0.1),
        ("augmentation.flips", True),
        ("evaluation.window", 80),
        ("evaluation.overlap", 0.5),
        ("data.phantom", False),
        ("data.train", 0.6),
        ("data.validation", 0.1),
    ],
)
def test_paper_preset(key: str, value: Any) -> None:
    assert value_of(make_settings("paper"), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network.width", 8),
        ("calibration.residual", True),
        ("calibration.anchor_ema", 0.9),
        ("personalization.patience", 4),
        ("personalization.warmup_rounds", 5),
        ("training.crop", 32),
        ("training.batch", 2),
        ("augmentation.tumour_share", 0.7),
        ("data.phantom", True),
        ("calibration.anchors_per_class", 4),
    ],
)
def test_phantom_preset(key: str, value: Any) -> None:
    """The trial of algorithm section 6, whose learning rate was raised; what it does not say stays the paper's."""
    assert value_of(make_settings("phantom"), key) == value


@pytest.mark.parametrize("preset", PRESETS)
def test_overrides_change_one_key_and_leave_its_neighbours(preset: str) -> None:
    before = make_settings(preset)
    after = make_settings(preset, {"seed": 3, "training": {"crop": 48}})
    assert (after.seed, after.training.crop) == (3, 48)
    assert after.training.model_dump(exclude={"crop"}) == before.training.model_dump(exclude={"crop"})
    assert after.model_dump(exclude={"training", "seed"}) == before.model_dump(exclude={"training", "seed"})


def test_presets_are_not_changed_by_what_is_made_of_them() -> None:
    make_settings("phantom", {"network": {"width": 32}, "training": {"crop": 64}})
    assert (make_settings("phantom").network.width, make_settings("phantom").training.crop) == (8, 32)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_settings().rounds = 3


@pytest.mark.parametrize(
    ("method", "own"),
    [("fedmepd", {"personalization": {"patience": None}}), ("fusion_only", {"training": {"modality_dropout": False}})],
)
def test_travels_as_json(method: str, own: dict[str, Any]) -> None:
    settings = make_settings("phantom", {"method": method, "run_name": "a.b-c_1"} | own)
    assert make_settings("paper", json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("personalization.patience", None),
        ("personalization.patience", 0),
        ("calibration.anchors_per_class", 1),
        ("aggregation.server_share", 1),
        ("method", "fusion_only"),
        ("rounds", 1),
        ("data.train", 0.9),
        ("run_name", ""),
    ],
)
def test_bounds_are_inside(key: str, value: Any) -> None:
    assert value_of(make_settings("paper", nested(key, value)), key) == value


def test_no_run_name_may_be_null() -> None:
    assert make_settings("paper", {"run_name": None}).run_name == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 0),
        ("rounds", 1.5),
        ("rounds", "many"),
        ("seed", -1),
        ("method", "fedmean"),
        ("run_name", "../elsewhere"),
        ("run_name", ".hidden"),
        ("run_name", "a/b"),
        ("run_name", "a" * 65),
        ("network.width", 6),
        ("network.width", 0),
        ("calibration.anchor_ema", 1.0),
        ("calibration.anchors_per_class", 0),
        ("aggregation.server_share", 1.1),
        ("aggregation.wire_precision", "int8"),
        ("personalization.patience", 256),
        ("personalization.patience", -1),
        ("training.crop", 33),
        ("training.crop", 8),
        ("training.batch", 0),
        ("training.learning_rate", 0),
        ("training.learning_rate", float("nan")),
        ("augmentation.tumour_share", 1.5),
        ("evaluation.overlap", 1.0),
        ("data.train", 0),
        ("network", 8),
        ("network", None),
    ],
)
def test_out_of_bounds_names_the_key_and_the_value(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings("paper", nested(key, value))
    assert f"settings: {key} = {value!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"network": {"widht": 8}}, ["unknown key network.widht", "width, shared_encoder"]),
        ({"roundz": 8}, ["unknown key roundz", "method, task, run_name, seed, rounds"]),
        ({"width": 8}, ["unknown key width", "network"]),
        ({"data": {"train": 0.8, "validation": 0.3}}, ["settings: data: ", "train + validation is above 1"]),
        ({"rounds": 0, "network": {"width": 6}}, ["settings: rounds = 0", "; network.width = 6"]),
    ],
)
def test_what_is_wrong_is_named(overrides: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings("paper", overrides)
    assert [text for text in expected if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("method", "key", "value", "owners"),
    [
        ("local", "calibration", {"enabled": False}, "fedmepd, fedmema"),
        ("fedavg", "personalization", {"patience": 3}, "fedmepd"),
        ("fedavg", "aggregation.server_share", 0.5, "fedmepd"),
        ("fedmepd", "training.modality_dropout", False, "central, fedavg, fusion_finetune, fusion_only"),
        ("local", "proximal", {"mu": 0.1}, "fedprox"),
    ],
)
def test_a_setting_of_another_method_is_refused_and_its_owner_named(
    method: str, key: str, value: Any, owners: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings("paper", {"method": method} | nested(key, value))
    expected = f"settings: {key} is a setting of {owners}, and this job's method is {method}: leave it out"
    assert str(caught.value) == expected


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_has_every_preset(preset: str, method: str) -> None:
    settings = make_settings(preset, {"method": method})
    assert type(settings) is methods.find(method).settings and settings.method == method
    assert settings.network.width == {"paper": 16, "phantom": 8}[preset]


def test_methods_own_settings() -> None:
    assert make_settings("paper", {"method": "fusion_only"}).training.modality_dropout is True
    assert not hasattr(make_settings("paper", {"method": "fedmepd"}).training, "modality_dropout")
    assert not hasattr(make_settings("phantom", {"method": "fedavg"}), "calibration")
    assert not hasattr(make_settings("phantom", {"method": "local"}).aggregation, "server_share")


def test_unknown_preset() -> None:
    with pytest.raises(SettingsError, match="unknown preset 'papers': expected one of paper, phantom"):
        make_settings("papers")


@pytest.mark.parametrize("overrides", [[], ["rounds"], "rounds=3", 3])
def test_overrides_of_another_kind(overrides: Any) -> None:
    with pytest.raises(SettingsError, match=f"got {type(overrides).__name__}"):
        make_settings("paper", overrides)


@pytest.mark.parametrize(
    ("crop", "precision", "expected"),
    [(16, "auto", "float32"), (16, "float32", "float32"), (24, "auto", "auto"), (24, "bfloat16", "bfloat16")],
)
def test_crops_below_24_train_in_float32(crop: int, precision: str, expected: str) -> None:
    """The coarsest level of a crop of 16 has two voxels a side, where bfloat16's gradients are wrong."""
    training = make_settings("paper", {"training": {"crop": crop, "precision": precision}}).training
    assert training.training_precision() == expected


def test_bfloat16_is_refused_for_crops_below_24() -> None:
    with pytest.raises(SettingsError, match="bfloat16 needs crops of 24 or more, crop is 16"):
        make_settings("paper", {"training": {"crop": 16, "precision": "bfloat16"}})


@pytest.mark.parametrize("method", methods.names())
def test_every_number_has_an_upper_bound(method):
    """Without one, a job could ask a hospital for any amount of memory, disk or time."""

    def numbers(schema, place):
        for name, field in schema.get("properties", {}).items():
            if "$ref" in field:
                yield from numbers(definitions[field["$ref"].rpartition("/")[2]], f"{place}{name}.")
            for kind in field.get("anyOf", [field]):
                if kind.get("type") in ("integer", "number") and "enum" not in kind and "const" not in kind:
                    yield f"{place}{name}", kind

    schema = methods.find(method).settings.model_json_schema()
    definitions = schema["$defs"]
    found = dict(numbers(schema, ""))
    assert len(found) > 25
    assert [key for key, kind in found.items() if not {"maximum", "exclusiveMaximum"} & kind.keys()] == []


def test_noise_so_small_that_its_account_would_fill_the_memory_is_refused():
    for noise in (0, 0.2, 5):
        assert make_settings("paper", {"privacy": {"epsilon": 1000, "noise": noise}}).privacy.noise == noise
    with pytest.raises(SettingsError, match=r"privacy\.noise.*expected 0, or at least 0\.2"):
        make_settings("paper", {"privacy": {"epsilon": 1000, "noise": 0.001}})
