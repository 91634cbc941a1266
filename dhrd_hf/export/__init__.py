"""A dual-head model's classifier, as a stock checkpoint."""

from .classifier import export_classifier

__all__ = ["export_classifier"]
