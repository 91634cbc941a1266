"""Rationales: a teacher writes them, checks and an audit say what they are worth, and the good ones are chosen."""

from .. import lazily

# Public name -> module: an audit wants no model, and a choice no audit.
_LAZY = {
    "audit_rationales": "audit",
    "check_rationale": "checks",
    "filter_rationales": "filter",
    "generate_rationales": "generate",
    "LabelledTable": "labelled",
    "open_teacher": "teacher",
    "Sampling": "teacher",
    "select_best": "select",
    "shorten": "filter",
    "TeacherPrompt": "prompt",
}
__all__ = list(_LAZY)
__getattr__, __dir__ = lazily(__name__, _LAZY)
