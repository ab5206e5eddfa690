"""Inside a guest: its interfaces get their names, addresses and routes; what it has is read."""

from __future__ import annotations

