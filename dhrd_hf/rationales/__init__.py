"""Rationales: a teacher writes them, checks and an audit say what they are worth, and the good ones are chosen."""

from .. import lazily

# By module: an audit wants no model, and a choice no audit.
_NAMES_OF = {
    "audit": "audit_rationales",
    "checks": "check_rationale",
    "filter": "filter_rationales shorten",
    "generate": "generate_rationales",
    "teacher": "open_teacher Sampling",
    "select": "select_best",
    "prompt": "LabelledTable TeacherPrompt",
}
__all__, __getattr__, __dir__ = lazily(__name__, _NAMES_OF)
