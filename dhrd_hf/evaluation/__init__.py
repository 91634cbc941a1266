"""How good a classifier is, how sure, and how to run it over many texts."""

from .baselines import baseline_answers, doubtful_labels
from .calibration import calibration_metrics, fit_temperature, reliability
from .cot import CoTAnswer, decode_answers
from .loading import load_classifier
from .metrics import compute_metrics, paired_change
from .prediction import LabelledLogits, Prediction, predict_table, predict_texts
from .served import compare_on_rows
from .thresholds import fit_abstention, fit_label_sets, fit_thresholds, rows_that_would_do, threshold_report
from .verdict import evaluation_report

__all__ = [
    "CoTAnswer",
    "LabelledLogits",
    "Prediction",
    "baseline_answers",
    "calibration_metrics",
    "compare_on_rows",
    "compute_metrics",
    "decode_answers",
    "doubtful_labels",
    "evaluation_report",
    "fit_abstention",
    "fit_label_sets",
    "fit_temperature",
    "fit_thresholds",
    "load_classifier",
    "paired_change",
    "predict_table",
    "predict_texts",
    "reliability",
    "rows_that_would_do",
    "threshold_report",
]
