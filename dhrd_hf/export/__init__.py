"""A dual-head model's classifier, as a stock checkpoint, here, on the Hub, or on another engine."""

from .card_facts import CardFacts
from .classifier import export_classifier
from .contract import Contract
from .engines import EngineClassifier, export_engine
from .hub import push_classifier
from .model_card import make_model_card, write_model_card
from .replay import Replay
from .serving import Server, verify_server
from .verification import verify_export

__all__ = [
    "CardFacts",
    "Contract",
    "EngineClassifier",
    "Replay",
    "Server",
    "export_classifier",
    "export_engine",
    "make_model_card",
    "push_classifier",
    "verify_export",
    "verify_server",
    "write_model_card",
]
