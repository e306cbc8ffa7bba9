"""Options that hold several values with commas between."""

from typing import TypeVar

from medtextdiff.config import ConfigError

Number = TypeVar("Number", int, float)


def numbers(text: str | None, kind: type[Number], what: str) -> list[Number]:
    """ "1,2,5" as numbers; None and "" are none.

    Raises:
        ConfigError: anything else.
    """
    try:
        return [kind(part) for part in words(text)]
    except ValueError:
        whole = "whole " if kind is int else ""
        raise ConfigError(f"{what} are {whole}numbers with commas between, e.g. 0,1,2; got '{text}'") from None


def words(text: str | None) -> list[str]:
    """ "a, b" as words; None and "" are none."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
