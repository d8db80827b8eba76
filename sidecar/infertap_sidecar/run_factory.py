"""Stands in the place of the user's factory under `infertap run -- uvicorn --factory`.

uvicorn tells a factory that cannot be imported from one that fails, and must go on telling them apart.
"""

import os
from typing import Any

from uvicorn.importer import import_from_string

from infertap_sidecar.launch import APP_VARIABLE
from infertap_sidecar.run_wrapper import wrapped

_factory = import_from_string(os.environ[APP_VARIABLE])


def factory() -> Any:
    """The wrapped app. Raises what the user's factory raises, a TypeError for what is none."""
    return wrapped(_factory())
