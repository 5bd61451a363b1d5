"""Curves in an experiment tracker: what an export adds to a job, and what the receiver does with the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.flare.tracking import TRACKERS, add_tracking

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "fedmepd_brats"


def components(job: Path) -> dict[str, dict]:
    [file] = job.glob("*/config/config_fed_server.json")
    return {component["id"]: component for component in json.loads(file.read_text())["components"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["mlflow"], {"path": "fedmepd.flare.tracking_mlflow.MLflowTracking", "args": {}}),
        (["mlflow", "--tracking-uri", "http://there:5000"], {"args": {"tracking_uri": "http://there:5000"}}),
        (["wandb"], {"path": "fedmepd.flare.tracking_wandb.WandBTracking", "args": {}}),
    ],
)
def test_an_exported_job(options: list[str], expected: dict, tmp_path: Path) -> None:
    """It has one component more, at the server alone, and TensorBoard as before."""
    out = tmp_path / "job"
    assert main(["job", "export", str(JOB), str(out), "--without-code", "--tracking", *options]) == 0
    before, after = components(JOB), components(out)
    assert after.keys() - before.keys() == {options[0]} and before.items() <= after.items()
    assert expected.items() <= after[options[0]].items()
    clients = "app/config/config_fed_client.json"
    assert (out / clients).read_text() == (JOB / clients).read_text()


def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["job", "export", str(JOB), str(tmp_path / "a"), "--tracking-uri", "http://there"]) == 2
    assert "--tracking-uri http://there: say --tracking mlflow too" in capsys.readouterr().err
    assert main(["job", "export", str(JOB), str(tmp_path / "a"), "--tracking", "wandb", "--tracking-uri", "x"]) == 2
    assert "WANDB_BASE_URL" in capsys.readouterr().err and not (tmp_path / "a").exists()
    assert main(["job", "export", str(JOB), str(tmp_path / "a"), "--without-code", "--tracking", "mlflow"]) == 0
    with pytest.raises(FedMEPDError, match="has a component mlflow already"):
        add_tracking(tmp_path / "a", "mlflow")
    with pytest.raises(SettingsError, match="expected one of mlflow, wandb"):
        add_tracking(tmp_path / "a", "aim")
    with pytest.raises(FedMEPDError, match="is no job"):
        add_tracking(tmp_path, "wandb")


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_server_without_the_package(tracker: str) -> None:
    """FLARE says which package is missing, and the job does not start."""
    module, _, name = TRACKERS[tracker].rpartition(".")
    try:
        __import__(tracker)
    except ImportError:
        with pytest.raises(ImportError, match=tracker):
            __import__(module, fromlist=[name])
    else:
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_figures_reach_mlflow(tmp_path: Path) -> None:
    """One run, of the server, with the figures of all sites by round; a picture is left out."""
    pytest.importorskip("mlflow")
    import numpy as np
    from mlflow.tracking import MlflowClient
    from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
    from nvflare.apis.event_type import EventType
    from nvflare.apis.fl_constant import EventScope, FLContextKey, ProcessType
    from nvflare.apis.fl_context import FLContextManager
    from nvflare.apis.utils.analytix_utils import create_analytic_dxo

    from fedmepd.flare.tracking_mlflow import MLflowTracking

    class Places:
        """The server's folders, as far as the receiver asks for them."""

        def get_workspace(self):
            return self

        def get_run_dir(self, job_id: str) -> str:
            return str(tmp_path / job_id)

    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    receiver = MLflowTracking(uri)
    manager = FLContextManager(engine=Places(), identity_name="server", job_id="job-1234")
    with manager.new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.PROCESS_TYPE, ProcessType.SERVER_JOB, private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.EVENT_SCOPE, EventScope.LOCAL, private=True, sticky=False)
        receiver.handle_event(EventType.START_RUN, fl_ctx)
        for number in (1, 2):
            figures = {"site-1/dice": 0.25 * number, "server/dice": 0.3 * number}
            dxos = [
                create_analytic_dxo(tag=tag, value=value, data_type=AnalyticsDataType.SCALAR, global_step=number)
                for tag, value in figures.items()
            ]
            picture = np.zeros((3, 4, 4), "uint8")
            dxos.append(
                create_analytic_dxo(tag="map", value=picture, data_type=AnalyticsDataType.IMAGE, global_step=number)
            )
            for dxo in dxos:
                fl_ctx.set_prop(FLContextKey.EVENT_DATA, dxo.to_shareable(), private=True, sticky=False)
                receiver.handle_event(ANALYTIC_EVENT_TYPE, fl_ctx)
        receiver.handle_event(EventType.END_RUN, fl_ctx)
    client = MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name("fedmepd").experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics == {"site-1/dice": 0.5, "server/dice": 0.6}
    history = client.get_metric_history(run.info.run_id, "site-1/dice")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
