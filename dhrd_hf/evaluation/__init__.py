"""How good a classifier is, and how to run it over many texts."""

from .loading import load_classifier
from .metrics import compute_metrics
from .prediction import Prediction, predict_texts

__all__ = ["Prediction", "compute_metrics", "load_classifier", "predict_texts"]
