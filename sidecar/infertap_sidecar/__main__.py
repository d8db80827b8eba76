"""`python -m infertap_sidecar` is the command `infertap`."""

import sys

from infertap_sidecar.cli import main

sys.exit(main())
