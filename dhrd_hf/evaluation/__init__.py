"""How good a classifier is, how sure, and how to run it over many texts."""

from .. import lazily

# Public name -> module, imported when first used.
_LAZY = {
    "baseline_answers": "baselines",
    "calibration_metrics": "calibration",
    "compare_on_rows": "served",
    "compute_metrics": "metrics",
    "CoTAnswer": "cot",
    "decode_answers": "cot",
    "doubtful_labels": "baselines",
    "evaluation_report": "verdict",
    "fit_abstention": "thresholds",
    "fit_label_sets": "thresholds",
    "fit_temperature": "calibration",
    "fit_thresholds": "thresholds",
    "LabelledLogits": "prediction",
    "load_classifier": "loading",
    "paired_change": "metrics",
    "predict_table": "prediction",
    "predict_texts": "prediction",
    "Prediction": "prediction",
    "reliability": "calibration",
    "rows_that_would_do": "thresholds",
    "threshold_report": "thresholds",
}
__all__ = list(_LAZY)
__getattr__, __dir__ = lazily(__name__, _LAZY)
