"""A dual-head model's classifier, as a stock checkpoint, here, on the Hub, or on another engine."""

from .. import lazily

# What an export is written for: another engine, or torch in one of two forms.
ENGINES, FORMATS = ("onnx", "openvino"), ("dense", "adapter")
# By module, imported when first used.
_NAMES_OF = {
    "card_facts": "CardFacts",
    "contract": "Contract",
    "engines": "EngineClassifier export_engine",
    "classifier": "export_classifier",
    "model_card": "make_model_card write_model_card",
    "hub": "push_classifier",
    "replay": "Replay",
    "serving": "Server verify_server",
    "verification": "verify_export",
}
__all__, __getattr__, __dir__ = lazily(__name__, _NAMES_OF)
