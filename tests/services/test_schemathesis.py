"""The running engine keeps what its OpenAPI document promises, whatever it is sent.

For longer than here, against any running service, from the root of the checkout:

    SCHEMATHESIS_HOOKS=tests.services.schemathesis_hooks PYTHONPATH=. \\
        st run http://127.0.0.1:8001/openapi.json --checks not_a_server_error -n 1000
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .harness import wait_until
from .program import program

ROOT = Path(__file__).parents[2]
# Left out is what presumes that every sequence of bytes is a recording, and every string a model.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,unsupported_method"
)
COMMAND = ("--checks", CHECKS, "--max-examples", "8", "--seed", "1", "--continue-on-failure")


def test_no_request_brings_out_what_is_not_documented(tmp_path: Path) -> None:
    hooks = {"SCHEMATHESIS_HOOKS": "tests.services.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    with program(tmp_path) as engine:
        wait_until(lambda: engine.http.get("/ready").status_code == 200, 30)
        schemathesis = str(Path(sys.executable).with_name("st"))
        ended = subprocess.run(
            [schemathesis, "run", f"{engine.http.base_url}/openapi.json", *COMMAND],
            cwd=tmp_path,
            env=os.environ | hooks,
            capture_output=True,
            text=True,
            timeout=300,
        )
        counts = engine.http.get("/metrics").text
    assert ended.returncode == 0, ended.stdout
    for route in ("/v1/audio/transcriptions", "/v1/audio/translations", "/asr", "/transcribe"):
        assert f'speech_requests_total{{route="{route}",status="200"}}' in counts
