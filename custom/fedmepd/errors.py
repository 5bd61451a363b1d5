"""Errors that a user can act on. Their message names the file, key or site, and says what to do."""


class FedMEPDError(Exception):
    """Something that a user can put right; the message says what.

    Args:
        message: for the machine's own log; may name cases and files.
        public: what may leave a site: no case names, no paths.
    """

    kind = "something is wrong"

    def __init__(self, message: str, public: str | None = None):
        super().__init__(message)
        self.public = public or f"{self.kind}; the site's own log says more"


class DataError(FedMEPDError):
    """A data folder, case or file cannot be used."""

    kind = "the site's data cannot be used"


class SettingsError(FedMEPDError):
    """A setting is unknown, out of bounds or contradicts another one."""

    kind = "a setting of the site cannot be used"


class CheckpointError(FedMEPDError):
    """A checkpoint or state file cannot be used."""

    kind = "the site's kept state cannot be used"


class UpdateRefused(FedMEPDError):
    """A site's update is not taken into the aggregation; the message names site, key and reason."""


class FusionAway(FedMEPDError):
    """The fusion site is not there, or could not do its part of a round."""

    kind = "the fusion site is away"


class Aborted(Exception):
    """The run was asked to stop; raised between two training steps."""
