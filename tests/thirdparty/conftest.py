"""Third parties' packages have tests of their own, which run where the package is installed."""

from __future__ import annotations

collect_ignore = ["harmony_blinker", "harmony_udev"]
