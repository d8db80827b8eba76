"""Stands in the place of the user's `module:app` under `infertap run`."""

import os

from infertap_sidecar.launch import SERVER_VARIABLE
from infertap_sidecar.run_wrapper import app_of_server, wrapped

app = wrapped(app_of_server(os.environ[SERVER_VARIABLE]))
