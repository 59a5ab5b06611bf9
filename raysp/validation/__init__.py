"""Validation of an explorer's findings by exact ablations: choose what to measure (`plan`), and evaluate the measurements (`judge`).

Pure: like an explorer, it asks for masks and is told their values; it does not depend on models, Ray or the store.
"""

from raysp.specs.validation import Validation
from raysp.validation.agreement import Agreement, compare_attributions
from raysp.validation.judging import ValidationResult, judge
from raysp.validation.kinds import KINDS, kind_of, surrogate_kinds
from raysp.validation.planning import MAX_EXACT_ORDER, ValidationPlan, plan
from raysp.validation.verdicts import REASON_CODES, Reason, Verdict

__all__ = [
    "KINDS",
    "MAX_EXACT_ORDER",
    "REASON_CODES",
    "Agreement",
    "Reason",
    "Validation",
    "ValidationPlan",
    "ValidationResult",
    "Verdict",
    "compare_attributions",
    "judge",
    "kind_of",
    "plan",
    "surrogate_kinds",
]
