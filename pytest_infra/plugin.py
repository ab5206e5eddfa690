"""The pytest plugin: options, markers, skip policy, hooks."""

from __future__ import annotations
