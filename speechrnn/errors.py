"""Every error speechrnn raises on purpose: one tree, one exit code a branch.

    SpeechRNNError
      MachineRefused exit 1 no space, no permission, a cluster that failed
      UsageError   exit 2   the call is wrong: an unknown recipe key, a missing extra
      DataError    exit 3   the data is bad: a recording, a transcript, a manifest
      ModelError   exit 4   the model is bad: a corrupt, foreign or unfit file
      Stopped      exit 128 + the signal's number: asked to end, training has, and saved

A message says which item, what was found, what is needed and what to do.
"""


class SpeechRNNError(Exception):
    """Root of the tree; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class MachineRefused(SpeechRNNError):
    """No space, no permission, no memory, or a cluster that failed; the data may be sound."""


class UsageError(SpeechRNNError):
    """The command or the recipe asks for something that does not exist."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key or a value out of its range."""


class MissingExtra(UsageError):
    """A feature needs packages that are not installed: the message names the extra."""

    def __init__(self, feature: str, extra: str):
        super().__init__(f'{feature} needs the extra [{extra}]: pip install "speechrnn[{extra}]"')


class DataError(SpeechRNNError):
    """Something in the user's recordings, transcripts or manifests is unusable.

    ``reason`` is the short code under which reports count it.
    """

    exit_code = 3
    reason = "bad_data"


class ManifestError(DataError):
    """A manifest cannot be read: no such file, columns missing, ids twice."""

    reason = "bad_manifest"


class AudioError(DataError):
    """One recording cannot be used; ``reason`` tells why."""

    def __init__(self, message: str, reason: str = "unreadable"):
        super().__init__(message)
        self.reason = reason


class TranscriptError(DataError):
    """One transcript cannot be learned; ``reason`` tells why."""

    def __init__(self, message: str, reason: str = "bad_transcript"):
        super().__init__(message)
        self.reason = reason


class PreparedDataError(DataError):
    """Shards or their index are missing, incomplete or damaged."""

    reason = "bad_shard"


class ScoringError(DataError):
    """References and hypotheses do not belong together."""

    reason = "bad_scoring"


class TrainingDiverged(DataError):
    """Losses or gradients stayed non-finite; the message names the utterances."""

    reason = "diverged"


class ModelError(SpeechRNNError):
    """A model, checkpoint or exported file is damaged, foreign or unfit for the call."""

    exit_code = 4


class Stopped(SpeechRNNError):
    """Training was asked to stop by a signal, and saved where it stood."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell counts it
