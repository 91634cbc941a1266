"""A dual-head model's classifier, as a stock checkpoint, here, on the Hub, or on another engine."""

from .. import lazily

# What an export is written for: another engine, or torch in one of two forms.
ENGINES, FORMATS = ("onnx", "openvino"), ("dense", "adapter")
# Public name -> module, imported when first used.
_LAZY = {
    "CardFacts": "card_facts",
    "Contract": "contract",
    "EngineClassifier": "engines",
    "export_classifier": "classifier",
    "export_engine": "engines",
    "make_model_card": "model_card",
    "push_classifier": "hub",
    "Replay": "replay",
    "Server": "serving",
    "verify_export": "verification",
    "verify_server": "serving",
    "write_model_card": "model_card",
}
__all__ = list(_LAZY)
__getattr__, __dir__ = lazily(__name__, _LAZY)
