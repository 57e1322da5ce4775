"""What comes before all imports."""

from __future__ import annotations

import os
import subprocess
import sys


def test_nothing_that_is_imported_may_report_on_its_users() -> None:
    script = """
import os
from speech_service.process.startup import lasting_imports
with lasting_imports():
    print(os.environ["ORT_DISABLE_TELEMETRY"], os.environ["HF_HUB_DISABLE_TELEMETRY"])
"""
    clean = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    ended = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True)
    assert ended.stdout.split() == [b"1", b"1"], ended.stderr
