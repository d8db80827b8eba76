"""Where infertap runs: on Linux and, for development, on macOS."""


def require_supported(platform: str) -> None:
    """Refuse a platform whose file locks, signals and forks are others.

    Args:
        platform: As `sys.platform` names it.

    Raises:
        ImportError: in one sentence, with the name `infertap`, so that an optional import of infertap can be caught.
    """
    if platform in ("win32", "cygwin"):
        raise ImportError(
            "infertap runs on Linux and macOS, not on Windows: use WSL 2 or a Linux container.", name="infertap"
        )
