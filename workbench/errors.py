"""The errors a person may see: each says what was wrong, what was found, and what to do."""

from collections.abc import Callable


class WorkbenchError(Exception):
    """Root of all errors that are the input's or the machine's fault, never a bug of ours."""


class DataError(WorkbenchError):
    """Preference data that cannot be read, written or edited as asked."""


class ModelError(WorkbenchError):
    """A model or adapter that cannot be found, is unsafe to load, or does not fit its partner."""


class ScoringError(WorkbenchError):
    """Scoring that cannot be done, for example because the memory would not suffice."""


class Cancelled(WorkbenchError):
    """Raised inside a job whose owner asked it to stop; never shown as a failure."""


class TrainingError(WorkbenchError):
    """A training run that cannot start or go on: settings, weights, or a loss that diverged."""


def stop_if(cancelled: Callable[[], bool] | None, what: str) -> None:
    """Stop here if that was asked; `what` names the work in the message, "scoring" for example.

    Raises:
        Cancelled: asked to stop.
    """
    if cancelled is not None and cancelled():
        raise Cancelled(f"{what} was cancelled")
