"""What is minimised: metrics of the validation split after the last epoch, by the names a user gives."""

from cskd.utils.cli import check_choice
from cskd.utils.errors import UserError

OBJECTIVES = {"error": "top1_error", "nll": "nll", "ece": "ece"}  # name -> metric
TITLES = {"error": "validation error (%)", "nll": "validation NLL (nats)", "ece": "validation ECE (%)"}


def parse_objectives(text: str) -> tuple[str, ...]:
    """``error`` as ("error",), ``error,ece`` as ("error", "ece"): minimised together. Raises UserError."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        check_choice("objective", name, OBJECTIVES)
    if len(names) > 2 or len(set(names)) != len(names):
        raise UserError(
            f"OBJECTIVE={text} is not understood: give one of {', '.join(OBJECTIVES)}, or two, as error,ece"
        )
    return names
