"""The kind of a classification head's outputs: logits of mutually exclusive classes, logits of independent labels, or values of a regression."""

from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

Head = Literal["classes", "labels", "regression"]


def head_of(model: Any) -> Head:
    """The head of a sequence classifier, by its configuration's `problem_type`; without one, a single output is a regression, as transformers trains it."""
    problem = getattr(model.config, "problem_type", None)
    if problem == "multi_label_classification":
        return "labels"
    return "regression" if problem == "regression" or getattr(model.config, "num_labels", 2) == 1 else "classes"


def has_independent_labels(model: Any) -> bool:
    """Whether the outputs are independent probabilities. False for language models."""
    return getattr(model.config, "problem_type", None) == "multi_label_classification"


def log_probabilities(model: Any, logits: Tensor) -> Tensor:
    """Log-probabilities in the dtype of the logits, over the last dimension: the log-sigmoid of each independent label, else the log-softmax."""
    return functional.logsigmoid(logits) if has_independent_labels(model) else logits.log_softmax(-1)
