"""A dual-head model's classifier, as a stock checkpoint, here, on the Hub, or on another engine."""

from .card_facts import CardFacts
from .classifier import export_classifier
from .engines import EngineClassifier, export_engine
from .hub import push_classifier
from .model_card import make_model_card, write_model_card

__all__ = [
    "CardFacts",
    "EngineClassifier",
    "export_classifier",
    "export_engine",
    "make_model_card",
    "push_classifier",
    "write_model_card",
]
