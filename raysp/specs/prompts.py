"""What can be said of a feature lens's options before any model is loaded."""

from raysp.errors import UserError
from raysp.specs.lenses import FeatureLens


def check_prompt(lens: FeatureLens) -> None:
    """UserError for an empty prompt, and for options that contradict each other."""
    if not lens.prompt.strip():
        raise UserError("prompt", lens.prompt, "is empty", "give the text whose parts are to be ablated")
    for name in ("delimiter", "spans"):
        if lens.unit != name and getattr(lens, name) is not None:
            raise UserError(name, getattr(lens, name), f"is given, but the unit is {lens.unit}", f"set unit to {name}, or leave {name} out")
    if lens.whole_characters and lens.unit != "token":
        raise UserError("whole_characters", lens.whole_characters, f"is given, but the unit is {lens.unit}", "set unit to token, or leave whole_characters out")
    if lens.ablation == "replace" and lens.replacement is None:
        raise UserError("replacement", None, "is needed by ablation replace", "give a replacement text, for example '...'")
    if lens.ablation != "replace" and lens.replacement is not None:
        raise UserError("replacement", lens.replacement, f"is given, but the ablation is {lens.ablation}", "set ablation to replace, or leave it out")
