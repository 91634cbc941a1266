"""How good a classifier is, how sure, and how to run it over many texts."""

from .calibration import calibration_metrics, fit_temperature, fit_thresholds, reliability, threshold_report
from .cot import CoTAnswer, decode_answers
from .loading import load_classifier
from .metrics import compute_metrics
from .paired import paired_change
from .prediction import LabelledLogits, Prediction, predict_table, predict_texts
from .report import evaluation_report
from .served import compare_on_rows

__all__ = [
    "CoTAnswer",
    "LabelledLogits",
    "Prediction",
    "calibration_metrics",
    "compare_on_rows",
    "compute_metrics",
    "decode_answers",
    "evaluation_report",
    "fit_temperature",
    "fit_thresholds",
    "load_classifier",
    "paired_change",
    "predict_table",
    "predict_texts",
    "reliability",
    "threshold_report",
]
