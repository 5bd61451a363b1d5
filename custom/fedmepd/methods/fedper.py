"""FedPer: the encoders are shared, the decoder of every site is its own.

Arivazhagan et al., arXiv 1912.00818, 2019. Base and head are trained together.

Exchanged: the encoders of a site's modalities.
Kept at the site: the decoder and the auxiliary decoder.

Departures from the paper. An encoder is averaged over the sites that have its modality, each with one vote, as in
FedMEPD. The fusion site trains after the average, encoders and its own decoder, which is the global one. So this is
FedMEPD with ``personalization.patience`` 0 and without calibration, a row of the ablations in FedMEPD's paper.
"""

from __future__ import annotations

from fedmepd.methods.method import Method
from fedmepd.methods.parts.encoders_only import EncodersAtServer

METHOD = Method(
    name="fedper",
    title="FedPer",
    paper="Arivazhagan et al., arXiv 2019",
    shared="encoders",
    personal="decoder",
    fusion="trains the averaged encoders in every round, with a decoder of its own",
    model="encoders averaged with other sites' and trained at the fusion site, decoder trained here alone",
    global_model="encoders averaged over the sites, trained at the fusion site with its decoder",
    at_server=EncodersAtServer,
    private=True,
)
