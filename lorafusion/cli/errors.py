"""What of an error is for the user."""

from hydra.errors import InstantiationException

from lorafusion.errors import UserError

PACKAGES = ("lorafusion", "lightning")  # a setting that they refuse is the user's to put right


def said_to_user(error: BaseException) -> str | None:
    """The line for the user in an error, None if it has none.

    That is a UserError, or what our code or Lightning's raises to refuse a setting while Hydra instantiates it.
    """
    place = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        found = str(error).partition("full_key: ")[2].strip()
        place, error = found or place, error.__cause__
        if type(error).__name__ in ("ValueError", "MisconfigurationException") and _raised_in(error, PACKAGES):
            return " ".join(f"{place}: {error}".removeprefix(": ").split())
    return " ".join(str(error).split()) if isinstance(error, UserError) else None


def _raised_in(error: BaseException, packages: tuple[str, ...]) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).split(".")[0] in packages
