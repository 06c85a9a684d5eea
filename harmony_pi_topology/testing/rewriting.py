"""What a contract's failing assertion saw is told as fully as a test's own. Imported before them."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__package__}.{each.name}"
        for each in pkgutil.iter_modules([str(Path(__file__).parent)])
        if each.name == "hearing" or each.name.endswith("_contract")
    )
)
