"""What differential privacy means for a participant of the federation: its terms, and what may leave."""

from __future__ import annotations

from collections.abc import Callable

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.data.training_images import ImageMeasures
from fedmepd.disclosure import Disclosure, patients_of
from fedmepd.errors import FedMEPDError
from fedmepd.privacy.participant import Account, Plan, Privacy, Terms
from fedmepd.site_settings import SitePrivacy


def privacy_of(
    owner: str,
    settings: Settings,
    demanded: SitePrivacy,
    cases: list[Case],
    account: Account,
    log: Callable[[str], None],
    *,
    epochs: int,
    rounds: int,
    vectors: bool = False,
) -> Privacy | None:
    """Returns the privacy of a participant; None where neither job nor site wants any.

    Args:
        owner: the participant.
        settings: of the job.
        demanded: by its machine.
        cases: that it trains on.
        account: of its ledger.
        log: takes lines.
        epochs: in a round.
        rounds: in which it trains.
        vectors: whether it releases class vectors in every round.

    Raises:
        FedMEPDError: the machine demands differential privacy, and the method cannot be combined with it.
    """
    terms = Terms.agreed(settings.privacy, demanded)
    if terms is None:
        return None
    method = methods.find(settings.method)
    if not method.private:
        message = (
            f"{method.title} cannot be trained with differential privacy, and the site demands it: choose one of "
            f"{', '.join(methods.private_names())}"
        )
        raise FedMEPDError(f"{owner}: {message}", public=message)
    plan = Plan(len({case.patient for case in cases}), settings.training.batch, epochs, rounds, vectors)
    return Privacy(owner, terms, plan, account, log=log)


def images_of(privacy: Privacy | None, data: SiteData) -> ImageMeasures:
    """Returns what a model file says of the images that it was trained on: nothing where no noise protects them."""
    return data.images if privacy is None or data.phantoms else ImageMeasures()


def told_images(privacy: Privacy | None, data: SiteData, disclosure: Disclosure) -> ImageMeasures:
    """Returns the same of a model that leaves the participant: coarse, of enough patients unless any number does."""
    images = images_of(privacy, data)
    if disclosure.fewest <= 1:
        return images
    return images.coarse() if patients_of(data.train) >= disclosure.fewest else ImageMeasures()


def disclosed(disclosure: Disclosure, privacy: Privacy | None, demanded: SitePrivacy, data: SiteData) -> Disclosure:
    """Returns what may leave a participant; made-up cases are nobody's, so their scores may."""
    if privacy is None:
        return disclosure
    return disclosure.under_privacy(shares_scores=data.source == "phantom" or demanded.scores == "share")
