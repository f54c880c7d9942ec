"""The benchmarks are no part of the distribution: they are found from the checkout, last."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent))
