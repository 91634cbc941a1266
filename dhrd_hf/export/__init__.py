"""A dual-head model's classifier, as a stock checkpoint, here or on the Hub."""

from .classifier import export_classifier
from .hub import push_classifier
from .model_card import CardFacts, make_model_card, write_model_card

__all__ = ["CardFacts", "export_classifier", "make_model_card", "push_classifier", "write_model_card"]
