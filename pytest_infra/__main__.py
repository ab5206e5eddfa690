"""``python -m pytest_infra`` is ``pytest-infra``."""

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
