"""A dual-head model's classifier, as a stock checkpoint, here or on the Hub."""

from .classifier import export_classifier
from .hub import push_classifier

__all__ = ["export_classifier", "push_classifier"]
