"""Prometheus metrics of a speech service, in a registry of its own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)


class Metrics:
    """What can be watched; labels take values from closed sets only, never from clients."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "speech_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.queued = Gauge(
            "speech_queue_length", "Requests that wait for a worker.", registry=self.registry
        )
        self.running = Gauge(
            "speech_jobs_running", "Transcriptions that run now.", registry=self.registry
        )
        self.live_sessions = Gauge(
            "speech_live_sessions", "Open WebSocket sessions.", registry=self.registry
        )
        self.cancelled = Counter(
            "speech_jobs_cancelled", "Jobs whose client left.", registry=self.registry
        )
        self.audio_seconds = Counter(
            "speech_audio_seconds", "Audio transcribed, in seconds.", registry=self.registry
        )
        self.busy_seconds = Counter(
            "speech_busy_seconds", "Time spent transcribing.", registry=self.registry
        )
        self.real_time_factor = Histogram(
            "speech_real_time_factor",
            "Time spent per second of audio, one observation per recording.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "speech_stage_seconds",
            "Time spent in a stage of a transcription, waiting for its model included.",
            ["stage"],
            buckets=(0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
            registry=self.registry,
        )
        self.model_loads = Counter(
            "speech_model_loads", "Attempts to load a model.", ["result"], registry=self.registry
        )
        self.model_load_seconds = Histogram(
            "speech_model_load_seconds",
            "Time to load a model.",
            buckets=(0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
            registry=self.registry,
        )
        self.models_loaded = Gauge(
            "speech_models_loaded", "Models in memory.", registry=self.registry
        )

    def model_load(self, name: str, seconds: float, succeeded: bool) -> None:
        """Count one attempt to load a model."""
        self.model_loads.labels("success" if succeeded else "failure").inc()
        if succeeded:
            self.model_load_seconds.observe(seconds)

    def recording(self, audio_seconds: float, busy_seconds: float) -> None:
        """Count one finished transcription."""
        self.audio_seconds.inc(audio_seconds)
        self.busy_seconds.inc(busy_seconds)
        if audio_seconds > 0:
            self.real_time_factor.observe(busy_seconds / audio_seconds)
