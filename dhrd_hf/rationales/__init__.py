"""Rationales: a teacher writes them, checks and an audit say what they are worth, and the good ones are chosen."""

from .audit import audit_rationales
from .checks import check_rationale
from .generation import generate_rationales
from .labelled import LabelledTable
from .prompt import TeacherPrompt
from .replies import Sampling
from .selection import filter_rationales, select_best
from .sentences import shorten
from .teachers import open_teacher

__all__ = [
    "LabelledTable",
    "Sampling",
    "TeacherPrompt",
    "audit_rationales",
    "check_rationale",
    "filter_rationales",
    "generate_rationales",
    "open_teacher",
    "select_best",
    "shorten",
]
