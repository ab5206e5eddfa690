"""The autopsy: why a packet did not come through, found by looking and never by touching."""

from __future__ import annotations

from .examine import Autopsy, examine
from .find_filters import filtered
from .finding import Case, Finding
from .hop import planned_wires
from .narrow import narrow_way, unacknowledged
from .view import View

__all__ = ["Autopsy", "Case", "Finding", "View", "examine", "filtered", "narrow_way", "planned_wires", "unacknowledged"]
