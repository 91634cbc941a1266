"""How good a classifier is, how sure, and how to run it over many texts."""

from .. import lazily

# By module, imported when first used.
_NAMES_OF = {
    "baselines": "baseline_answers doubtful_labels",
    "calibration": "calibration_metrics fit_temperature reliability",
    "metrics": "compute_metrics paired_change",
    "cot": "CoTAnswer decode_answers",
    "verdict": "compare_on_rows evaluation_report",
    "thresholds": "fit_abstention fit_label_sets fit_thresholds rows_that_would_do threshold_report",
    "prediction": "LabelledLogits predict_table predict_texts Prediction",
    "loading": "load_classifier",
}
__all__, __getattr__, __dir__ = lazily(__name__, _NAMES_OF)
