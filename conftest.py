"""What the project's own tests share: pytester, and how long hypothesis may look."""

from __future__ import annotations

import os

from hypothesis import settings

pytest_plugins = ["pytester"]

# A busy machine is no failure: no deadline. CI looks at the same examples each time; "thorough" looks at more.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))
