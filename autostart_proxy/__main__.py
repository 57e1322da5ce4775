"""`python -m autostart_proxy` is `autostart-proxy`."""

from __future__ import annotations

import sys

from autostart_proxy.commands.cli import main

sys.exit(main())
