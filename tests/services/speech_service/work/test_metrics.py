"""What is counted."""

from __future__ import annotations

from ... import media
from ...harness import serve


def test_metrics_count_what_was_done() -> None:
    with serve() as http:
        http.post("/v1/audio/transcriptions", files={"file": media.tone(2.0)})
        http.get("/no/such/route/1")
        text = http.get("/metrics").text
    assert "speech_audio_seconds_total 2.0" in text
    assert 'speech_model_loads_total{result="success"} 1.0' in text
    assert "speech_queue_length 0.0" in text
    assert "speech_real_time_factor_count 1.0" in text
    assert 'speech_requests_total{route="other",status="404"} 1.0' in text
    assert "no/such" not in text
