"""Errors that a user can act on. Their message names the file, key or site, and says what to do."""


class FedMEPDError(Exception):
    """Something that a user can put right; the message says what."""


class DataError(FedMEPDError):
    """A data folder, case or file cannot be used.

    Args:
        message: for the site itself; may name cases and files.
        public: what may leave the site: no case names, no paths.
    """

    def __init__(self, message: str, public: str = "the site's data cannot be used; its own log says why"):
        super().__init__(message)
        self.public = public


class SettingsError(FedMEPDError):
    """A setting is unknown, out of bounds or contradicts another one."""


class CheckpointError(FedMEPDError):
    """A checkpoint or state file cannot be used."""


class UpdateRefused(FedMEPDError):
    """A site's update is not taken into the aggregation; the message names site, key and reason."""


class Aborted(Exception):
    """The run was asked to stop; raised between two training steps."""
