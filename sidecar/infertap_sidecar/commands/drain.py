"""`infertap drain`: delivers what waits in the spool, once or as the drainer of others."""

import os
from collections.abc import Sequence
from pathlib import Path

from infertap.build import drainer_settings
from infertap.choice import Choice, choose, with_settings
from infertap.drain.settings import DrainerSettings
from infertap.errors import InfertapError, UsageError
from infertap.otel_env import OtelEnvironment
from infertap.spool.folder import SpoolFolder
from infertap_sidecar.drained_view import abandoned_lines, drained_lines, waiting_elsewhere
from infertap_sidecar.flags import add_config_file, add_settings, make_parser, read_settings
from infertap_sidecar.places import short
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import known_spools, places, places_of, report, survey
from infertap_sidecar.spool_targets import redirected, settings_of
from infertap_sidecar.terminal import harmless

_DESCRIPTION = """\
Delivers what waits in the spool to where it was meant to go, then ends: exit code 0 if nothing
is left. FOLDER is one destination's folder (infertap doctor names them), or a spool_dir with
several in it; without it, the folder of the settings. Credentials come from the settings, never
from the folder.

  infertap drain                    once
  infertap drain --follow           stays, for an app with drainer = "external"
  infertap drain FOLDER --redirect  to where the settings say now, for what was
                                    meant for a wrong address; never again what
                                    that has taken\
"""
_SETTINGS = (
    "tables", "storage_options", "destination", "content", "spool_dir", "spool_bytes_max", "commit_bytes_max",
    "commit_interval_s", "drain_s", "platform", "otlp_headers_file",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """0 if all is delivered, 1 if something is left. Raises: ConfigError, InfertapError."""
    parser = make_parser("drain", _DESCRIPTION)
    parser.usage = "infertap drain [FOLDER] [--follow | --redirect] [--SETTING VALUE ...]"
    folder_help = "one destination's folder, or a spool_dir; default: the folder of the settings"
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=None, help=folder_help)
    parser.add_argument("--follow", action="store_true", help="stay and deliver what comes, until a signal")
    parser.add_argument("--redirect", action="store_true", help="deliver FOLDER to the destination of the settings")
    add_config_file(parser)
    add_settings(parser, SidecarConfig, _SETTINGS, "settings")
    config = read_settings(SidecarConfig, parser, argv, own=("folder", "follow", "redirect"), delivers=True)
    arguments = parser.parse_args(argv)
    if arguments.redirect and (arguments.folder is None or arguments.follow):
        raise UsageError("--redirect takes the folder of one destination, and no --follow; doctor names the folder")
    otel = with_settings(OtelEnvironment.read(os.environ), config, cwd=Path.cwd())
    choice = choose(config, otel, cwd=Path.cwd())
    if arguments.redirect:
        return _redirect(arguments.folder, config, choice)
    work = _work(arguments.folder, config, otel, choice)
    if arguments.follow and len(work) > 1:
        raise InfertapError(f"--follow takes one folder, and {arguments.folder} holds {len(work)}; name one of them")
    code = max(_drain(settings, follow=arguments.follow) for settings in work)
    if arguments.folder is None:
        _tell_of_others(config, choice)
    return code


def _work(given: Path | None, config: SidecarConfig, otel: OtelEnvironment, choice: Choice) -> list[DrainerSettings]:
    """What to drain: settings per folder, read before anything starts."""
    if given is None:
        if choice.kind == "none":
            raise InfertapError(f"nothing is recorded ({choice.reason}), so there is no folder to drain; name one")
        return [drainer_settings(config, choice)]
    folders = (
        [given] if (given / "destination.json").exists() else sorted(p.parent for p in given.glob("*/destination.json"))
    )
    if not folders:
        raise InfertapError(f"{given} is neither a spool folder of infertap nor a spool_dir with one in it")
    settings = drainer_settings(config, choice)
    return [settings_of(folder.resolve(), settings, config, otel) for folder in folders]


def _redirect(given: Path, config: SidecarConfig, choice: Choice) -> int:
    if choice.kind == "none":
        raise InfertapError(f"nothing is recorded ({choice.reason}), so there is nowhere to send it")
    folder = given.resolve()
    settings = redirected(folder, drainer_settings(config, choice))
    if folder == choice.folder.resolve():
        return _drain(settings, follow=False)
    from infertap.drain.foreground import run_foreground
    from infertap.drain.redirect import given_up, pass_over

    spool = SpoolFolder(folder)
    kinds = places(folder)

    def once_locked() -> None:
        # Only now: a drainer that is about to leave holds the slots of those who are gone.
        if report(folder).owners:
            raise InfertapError(f"a living process writes to {short(folder)}; stop it first, or correct its settings")
        try:
            pass_over(spool, before=kinds, now=settings.targets.names)
        except OSError as error:
            raise InfertapError(f"cannot write to {short(folder)}: {error.strerror}") from error

    before = report(folder)
    abandoned = given_up(spool, before=kinds, now=settings.targets.names)
    code = run_foreground(spool, settings, follow=False, once_locked=once_locked)
    after = report(folder)
    to = places_of(settings.targets.identity(folder.parent), folder)
    print(harmless("\n".join(drained_lines(before, after, to))), flush=True)
    if not after.waiting.segments:
        print(harmless("".join(abandoned_lines(abandoned, kinds))), end="", flush=True)
    return code if after.waiting.segments else 0


def _drain(settings: DrainerSettings, *, follow: bool) -> int:
    if not follow and not settings.folder.exists():
        print(f"nothing to deliver: there is no spool folder {short(settings.folder)}")
        return 0
    # The heavy parts are loaded where there is something to carry.
    from infertap.drain.foreground import run_foreground

    before = report(settings.folder)
    code = run_foreground(SpoolFolder(settings.folder), settings, follow=follow)
    after = report(settings.folder)
    print(harmless("\n".join(drained_lines(before, after))), flush=True)
    # Another one's lock is no failure where that one has left nothing.
    return code if after.waiting.segments else 0


def _tell_of_others(config: SidecarConfig, choice: Choice) -> None:
    """Names the folders beside in which something waits for a destination of former times."""
    forgotten = [folder for folder in survey(known_spools(config, choice), choice) if folder.forgotten]
    if forgotten:
        print("\nother folders, whose destination is not that of the settings:")
    for folder in forgotten:
        print(f"  {waiting_elsewhere(folder)}")
