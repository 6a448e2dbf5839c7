"""`python -m valle` is the command `valle`."""

import sys

from valle.cli import main

sys.exit(main())
