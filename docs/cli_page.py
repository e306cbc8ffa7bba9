"""Writes docs/cli.md from the commands themselves: `python docs/cli_page.py`. A test checks that it is up to date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from medtextdiff.cli import app

PAGE = Path(__file__).with_name("cli.md")
HEAD = "# Commands\n\nGenerated from the commands by `python docs/cli_page.py`; do not edit.\n"


def page() -> str:
    """The page's text."""
    return HEAD + "".join(
        _section(name, command) for name, command in _leaves(typer.main.get_command(app), "medtextdiff")
    )


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for part in sorted(inner):
        yield from _leaves(inner[part], f"{name} {part}")


def _section(name: str, command: Any) -> str:
    lines = [f"\n## {name}\n", f"{(command.help or '').strip()}\n", "| | |", "|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        shown = ", ".join(f"`{option}`" for option in parameter.opts) + _value(parameter)
        if parameter.param_type_name == "argument":
            shown = f"`{parameter.metavar or parameter.name.upper()}`"
        default = parameter.default
        plain = isinstance(default, str | int | float) and not isinstance(default, bool) and default is not None
        told = f" Default: {default}." if plain else ""
        needed = " Required." if parameter.required and parameter.param_type_name == "option" else ""
        shown = shown.replace("|", "\\|")
        lines.append(f"| {shown} | {getattr(parameter, 'help', '') or ''}{told}{needed} |")
    return "\n".join(lines) + "\n"


def _value(parameter: Any) -> str:
    """What follows an option, or how a switch is turned off."""
    if getattr(parameter, "is_flag", False):
        return "".join(f" or `{option}`" for option in parameter.secondary_opts)
    kind = str(parameter.type_descriptor.annotation)
    words = {"pathlib.Path": "PATH", "'int'": "N", "'float'": "X"}
    return f" {next((word for name, word in words.items() if name in kind), 'TEXT')}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
