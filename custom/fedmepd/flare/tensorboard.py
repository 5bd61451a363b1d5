"""FLARE's TensorBoard receiver with a run for each site."""

from __future__ import annotations

from nvflare.apis.analytix import AnalyticsData
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver

from fedmepd.federation.charts import chart_of


class SiteRunsReceiver(TBAnalyticsReceiver):
    """Writes each figure to the run of its owner.

    FLARE's receiver has a run for each sender. Here the server sends all figures, so that every chart would have one
    line, and each site charts of its own.

    Args:
        tb_folder: below the job's folder on the server.
        events: that are received.
    """

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        data = AnalyticsData.from_dxo(from_shareable(shareable))
        if data is None:
            return
        run, tag = chart_of(data.tag)
        dxo = create_analytic_dxo(tag=tag, value=data.value, data_type=data.data_type, global_step=data.step)
        super().save(fl_ctx, dxo.to_shareable(), run)
