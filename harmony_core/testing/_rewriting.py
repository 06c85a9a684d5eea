"""What a contract's failing assertion saw is told as fully as a test's own. Imported before them."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__package__}.{each}_contract" for each in ("files", "systemd", "containers"))
)
