"""What of a URL may be shown or written down: everything but credentials, and whatever a query may hold."""

from urllib.parse import urlsplit


def without_credentials(url: str) -> str:
    """Without user, password, query and fragment, with a scheme or without; the path of a Unix socket as it is."""
    if url.startswith("unix:"):
        return url
    try:
        parts = urlsplit(url)
        if parts.netloc:
            return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        pass  # no URL: its parts are found by hand
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def without_password(uri: str) -> str:
    """For tables. A name alone before the `@` stays: in Azure's URIs it is the container, and no secret."""
    parts = urlsplit(uri)
    return uri.split("?", 1)[0] if parts.password is None else without_credentials(uri)
