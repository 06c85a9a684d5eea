"""What a contract's failing assertion saw is told as fully as a test's own. Imported before them."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__package__}.{each}"
        for each in (
            "hearing",
            "files_contract",
            "files_watch_contract",
            "systemd_contract",
            "unit_start_contract",
            "units_watch_contract",
            "containers_contract",
            "containers_watch_contract",
            "network_contract",
            "network_watch_contract",
        )
    )
)
