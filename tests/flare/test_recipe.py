import json

import pytest

from fedmepd.errors import SettingsError
from fedmepd.flare.recipe import FedMEPDRecipe


def test_the_environment_decides_which_sites_there_are(tmp_path):
    FedMEPDRecipe(name="trial").export(str(tmp_path))
    meta = json.loads((tmp_path / "trial/meta.json").read_text())
    assert meta["deploy_map"] == {"app": ["@ALL"]}


def test_arguments_become_settings():
    recipe = FedMEPDRecipe(
        rounds=3,
        seed=4,
        width=16,
        crop=48,
        run_name="x",
        fusion_site="site-8",
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
        "fusion": {"site": "site-8"},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"width": 6}, "width = 6"),
        ({"crop": 33}, "crop = 33"),
        ({"method": "sgd"}, "method = 'sgd'"),
        ({"run_name": "../up"}, "run_name = '../up'"),
        ({"fusion_site": "a/b"}, "site = 'a/b'"),
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
