"""Lets the tests of this folder import `tiny`, which is also run as a script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
