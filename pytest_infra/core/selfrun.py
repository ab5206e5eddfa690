"""The command line that runs a module of this package in a new, isolated Python."""

from __future__ import annotations

import os
import sys

__all__ = ["module_argv"]

_CODE = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; sys.exit(main(sys.argv[1:]))"
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def module_argv(module: str, *arguments: str) -> list[str]:
    """The argument list that calls `module`'s ``main(arguments)`` in a Python of its own.

    The interpreter is isolated (``python -I``): no variable and no file of the present folder changes what it
    imports, and the package is found wherever it was installed.
    """
    return [sys.executable, "-I", "-c", _CODE.format(module=module), _HOME, *arguments]
