from __future__ import annotations

import sys

from harmony_control.cli import main

sys.exit(main())
