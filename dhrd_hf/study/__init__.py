"""A grid of training runs, paired across settings, and what its table says."""

from .plan import Run, Study, read_study
from .runner import StudyOutcome, run_study
from .statistics import Gain, Summary, mean_relative_gain, paired_gains, summarise

__all__ = [
    "Gain",
    "Run",
    "Study",
    "StudyOutcome",
    "Summary",
    "mean_relative_gain",
    "paired_gains",
    "read_study",
    "run_study",
    "summarise",
]
