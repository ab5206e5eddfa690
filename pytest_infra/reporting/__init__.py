"""What is written about a test: its folder of evidence, pictures of its lab, summaries. Nothing here needs pytest."""

from __future__ import annotations

__all__: list[str] = []
