"""Objects of the app as text, whatever they do when they are asked."""


def text_of(value: object) -> str:
    """`str(value)`; a placeholder where an object of the app cannot be printed."""
    try:
        return str(value)
    except Exception:
        # The app's own code, which may raise what it likes.
        return f"<{type(value).__qualname__} that cannot be printed>"
