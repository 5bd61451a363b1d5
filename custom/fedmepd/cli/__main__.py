"""``python -m fedmepd.cli``."""

import sys

from fedmepd.cli.program import main

sys.exit(main())
