from __future__ import annotations

from pathlib import Path

from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedmepd.flare.tensorboard import SiteRunsReceiver


def test_one_chart_has_all_sites(tmp_path: Path) -> None:
    """The server sends the figures of everybody; each appears as a run of its own under the same tag."""
    receiver = SiteRunsReceiver(events=["analytix_log_stats"])
    receiver.root_log_dir = str(tmp_path)
    sent = {"site-1/validation_mdsc": 0.25, "site-2/validation_mdsc": 0.5, "mean of the sites/validation_mdsc": 0.375}
    for step in (5, 10):
        for tag, value in sent.items():
            kind = AnalyticsDataType.SCALAR
            dxo = create_analytic_dxo(tag=tag, value=value * step, data_type=kind, global_step=step)
            receiver.save(FLContext(), dxo.to_shareable(), "localhost")
    receiver.finalize(FLContext())
    assert {folder.name for folder in tmp_path.iterdir()} == {"site-1", "site-2", "mean of the sites"}
    for tag, value in sent.items():
        events = EventAccumulator(str(tmp_path / tag.partition("/")[0])).Reload()
        assert events.Tags()["scalars"] == ["1_scores/validation_mdsc"]
        points = [(event.step, event.value) for event in events.Scalars("1_scores/validation_mdsc")]
        assert points == [(5, 5 * value), (10, 10 * value)]
