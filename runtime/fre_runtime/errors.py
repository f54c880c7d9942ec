"""What can go wrong, each error both ours and a builtin.

Every message names the offending value, the limit that it broke and the next step.
"""


class FreError(Exception):
    """Base of every error that this project raises on purpose; commands exit with 1."""


class UsageError(FreError, ValueError):
    """A command or call was asked for something that does not exist; commands exit with 2."""


class ImageError(FreError, ValueError):
    """An image cannot be read, is too large, or has the wrong shape or dtype."""


class DataError(FreError, ValueError):
    """A set of images cannot serve: empty, too small, without variation, wrongly laid out."""


class CaptureError(FreError, ConnectionError):
    """A camera, stream or watched folder cannot be opened, or breaks off."""


class ArtifactError(FreError, ValueError):
    """A model directory is incomplete, changed, or contradicts itself."""


class MemoryLimitError(FreError, MemoryError):
    """Work would need more memory than there is; found out before it is begun."""


class OutputError(FreError, OSError):
    """A result cannot be written where it was asked for."""


class EngineError(FreError, RuntimeError):
    """An inference engine refused the model or answered wrongly."""


class QualityError(FreError, ValueError):
    """A model's quality is too low for its speed to be published."""


class MissingDependencyError(FreError, ImportError):
    """An optional package is not installed; the message gives the pip line."""
