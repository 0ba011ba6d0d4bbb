"""Runs the command line: ``python -m svae``."""

import sys

from svae.cli import main

sys.exit(main())
