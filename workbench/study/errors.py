"""The errors of the study frame."""

from workbench.errors import WorkbenchError


class StudyError(WorkbenchError):
    """A study that is ill-formed or unknown, a knob out of range, or a run that cannot be kept."""
