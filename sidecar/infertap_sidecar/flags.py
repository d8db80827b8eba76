"""Command-line flags: made from the settings' own fields, so that a new setting needs no second place.

Values stay text until `Config` reads them, so that a wrong flag and a wrong variable are reported together.
"""

import argparse
import os
import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic.fields import FieldInfo

from infertap.config import ENV_PREFIX, Config
from infertap.errors import ConfigError
from infertap.otel_env import OtelEnvironment
from infertap.platforms import PLATFORMS
from infertap.words import exact_size, nearest
from infertap.wrong_values import choices_of
from infertap_sidecar.width import WIDTH_MAX

C = TypeVar("C", bound=Config)

_CHOICES_CHARACTERS_MAX = 30
_PLACEHOLDERS = {
    "s": "SECONDS", "ms": "MILLISECONDS", "tables": "URI", "upstream": "URL", "listen": "HOST:PORT",
    "admin": "HOST:PORT", "otlp_http": "HOST:PORT", "otlp_grpc": "HOST:PORT", "workers": "N",
}  # fmt: skip
"""By a setting's name or by its last word, where that says nothing by itself."""


class _Help(argparse.HelpFormatter):
    """Help of at most 100 columns with room for long names; paragraphs are folded, indented lines stay as they are."""

    def __init__(self, prog: str) -> None:
        width = min(WIDTH_MAX, shutil.get_terminal_size((WIDTH_MAX, 24)).columns)
        super().__init__(prog, max_help_position=34, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Called by argparse for the description."""
        paragraphs = []
        for paragraph in text.split("\n\n"):
            example = paragraph.startswith("  ")
            paragraphs.append(paragraph if example else _folded(paragraph, width))
        return textwrap.indent("\n\n".join(paragraphs), indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Called by argparse for a flag's help; names like delta-rs stay whole."""
        return _folded(text, width).splitlines()


def _folded(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser for `infertap COMMAND`; abbreviated flags are not guessed."""
    return argparse.ArgumentParser(
        prog=f"infertap {command}", description=description, formatter_class=_Help, allow_abbrev=False
    )


def add_config_file(parser: argparse._ActionsContainer) -> None:
    """`--config FILE`."""
    parser.add_argument(
        "--config",
        dest="config_file",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="TOML file with settings; the variable INFERTAP_CONFIG does the same",
    )


def add_settings(parser: argparse.ArgumentParser, model: type[Config], names: Iterable[str], title: str) -> None:
    """One `--kebab-case` flag a setting."""
    group = parser.add_argument_group(title)
    for name in names:
        field = model.model_fields[name]
        group.add_argument(
            flag(name),
            dest=name,
            metavar=_placeholder(name, field),
            default=argparse.SUPPRESS,
            help=_describe(name, field).replace("%", "%%"),
        )


def flag(name: str) -> str:
    """`queue_bytes_max` is `--queue-bytes-max`."""
    return f"--{name.replace('_', '-')}"


def _placeholder(name: str, field: FieldInfo) -> str:
    """What stands for the value in the help: how it is written, as far as name and type tell."""
    last = name.rsplit("_", 1)[-1]
    kind = get_origin(field.annotation) or field.annotation
    choices = "|".join(choices_of(field))
    if choices and len(choices) <= _CHOICES_CHARACTERS_MAX:
        return choices
    if kind is tuple:
        return "GLOB,GLOB" if last == "paths" else "NAME,NAME"
    if kind is dict:
        return "NAME=VALUE,..."
    if kind is bool:
        return "true|false"
    if "bytes" in name.split("_"):
        return "SIZE"
    return _PLACEHOLDERS.get(name) or _PLACEHOLDERS.get(last) or last.upper()


def read_settings(
    model: type[C],
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    *,
    own: Collection[str] = (),
    stray: str = "",
    delivers: bool = False,
) -> C:
    """Parse and validate.

    Args:
        own: Arguments that are the command's and no settings.
        stray: What to do about an argument too many, where there is a likely reason for it.
        delivers: Whether mistakes in `OTEL_*` matter to the command: they are said in the same list. Where nothing
            else is wrong it is `choose` that says them.

    Raises:
        ConfigError: unknown flags and wrong settings in one list.
    """
    parsed, unknown = parser.parse_known_args(argv)
    known = [option for action in parser._actions for option in action.option_strings]
    problems = [_unknown(argument, known) for argument in unknown if argument.startswith("-")]
    if not problems:
        hint = f"; {stray}" if stray else ""
        problems = [f"{argument}: no such argument{hint}" for argument in unknown[:1]]
    given = {name: value for name, value in vars(parsed).items() if name not in own}
    try:
        config = model(**given, flags={name: flag(name) for name in given})
    except ConfigError as error:
        problems += error.problems
        remarks = error.remarks
    else:
        if not problems:
            return config
        remarks = config.warnings
    raise ConfigError([*problems, *(_otel_problems(parsed) if delivers else ())], remarks)


def _otel_problems(parsed: argparse.Namespace) -> Sequence[str]:
    """Mistakes in `OTEL_*` where the settings are wrong, too, and do not say which platform's layer counts."""
    platform = getattr(parsed, "platform", None) or os.environ.get(variable("platform"))
    otel = OtelEnvironment.read(os.environ, platform=platform if platform in PLATFORMS else None)
    return (*otel.platform_problems, *otel.problems)


def _unknown(argument: str, known: Sequence[str]) -> str:
    name = argument.split("=", 1)[0]
    # Without the dashes, which make everything look alike.
    meant = nearest(name.lstrip("-"), [option[2:] for option in known if option.startswith("--")])
    return f"{name}: no such flag" + (f"; did you mean --{meant}?" if meant else "")


def _describe(name: str, field: FieldInfo) -> str:
    text = field.description or ""
    choices = choices_of(field)
    if len(choices) > 1 and "|" not in _placeholder(name, field):
        text += f" One of: {', '.join(choices)}."
    if smallest := smallest_size(name, field):
        text += f" At least {smallest}."
    default = shown(field.get_default())
    return f"{text} Default: {default}." if default and len(default) < 50 else text


def smallest_size(name: str, field: FieldInfo) -> str:
    """`8KiB`; empty for what is no size, or may be nothing."""
    if not name.endswith("_bytes_max"):
        return ""
    return next((exact_size(bound.ge) for bound in field.metadata if getattr(bound, "ge", 0)), "")


def shown(value: Any) -> str:
    """A setting's value as one would write it in the environment."""
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, dict):
        return ",".join(f"{name}=..." for name in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 1 << 20:
        return exact_size(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def variable(name: str) -> str:
    """`queue_bytes_max` is `INFERTAP_QUEUE_BYTES_MAX`."""
    return f"{ENV_PREFIX}{name.upper()}"
