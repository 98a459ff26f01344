"""`python -m hhat.cli`: the command line where the script `hhat` is not on the path."""

import sys

from hhat.cli import main

sys.exit(main())
