import json
from pathlib import Path

import pytest

from fedmepd.config import Settings
from fedmepd.errors import SettingsError
from fedmepd.flare.export import CUSTOM_README
from fedmepd.flare.recipe import FedMEPDRecipe

JOBS = Path(__file__).parents[2] / "jobs"
METHODS = ("fedmepd", "local", "fedavg", "fusion_only")


def config(job, side):
    content = json.loads((job / f"app/config/config_fed_{side}.json").read_text())
    for filters in (*content.get("task_data_filters", []), *content.get("task_result_filters", [])):
        # FLARE's export takes a filter's tasks from a set, in an order that changes from process to process.
        filters["tasks"].sort()
    return content


@pytest.mark.parametrize("method", METHODS)
def test_recipe_writes_the_job_of_the_jobs_folder(tmp_path, method):
    recipe = FedMEPDRecipe(name=f"{method}_brats", method=method)
    recipe.export(str(tmp_path))
    written, ours = tmp_path / f"{method}_brats", JOBS / f"{method}_brats"
    assert config(written, "server") == config(ours, "server")
    assert config(written, "client") == config(ours, "client")
    meta, expected = (json.loads((job / "meta.json").read_text()) for job in (written, ours))
    # The recipe leaves it to its environment which sites there are.
    assert meta.pop("deploy_map") == {"app": ["@ALL"]}
    sites = expected.pop("deploy_map")["app"]
    assert sites == ["server", *(f"site-{number}" for number in range(1, 9))]
    assert meta == expected
    for job in (written, ours):
        assert (job / "app/custom/README.md").read_text() == CUSTOM_README
        assert not (job / "app/custom/fedmepd").exists()


@pytest.mark.parametrize("method", METHODS)
def test_jobs_differ_by_method_alone(method):
    arguments = config(JOBS / f"{method}_brats", "server")["workflows"][0]["args"]
    settings = Settings.make(**{"preset": arguments["preset"], "overrides": arguments["settings"]})
    assert settings == Settings.make("phantom", {"method": method})


def test_arguments_become_settings():
    recipe = FedMEPDRecipe(
        rounds=3,
        seed=4,
        width=16,
        crop=48,
        run_name="x",
        preset="paper",
        settings={"network": {"shared_encoder": True}},
    )
    assert recipe.settings == {
        "method": "fedmepd",
        "rounds": 3,
        "seed": 4,
        "network": {"shared_encoder": True, "width": 16},
        "training": {"crop": 48},
        "run_name": "x",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"width": 6}, "width = 6"),
        ({"crop": 33}, "crop = 33"),
        ({"method": "sgd"}, "method = 'sgd'"),
        ({"run_name": "../up"}, "run_name = '../up'"),
        ({"preset": "tiny"}, "preset 'tiny'"),
        ({"settings": {"round": 3}}, "unknown key round"),
        ({"rounds": 3, "settings": {"rounds": 4}}, "rounds is given twice"),
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"min_clients": 0}, "min_clients = 0"),
    ],
)
def test_bad_argument_is_named(arguments, message):
    with pytest.raises(SettingsError, match=message):
        FedMEPDRecipe(**arguments)


def test_arguments_have_names():
    with pytest.raises(TypeError):
        FedMEPDRecipe("fedmepd_brats")
