"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.responses = Counter("valle_http_responses", "HTTP responses", ["route", "status"], registry=self._registry)
        self.utterances = Counter(
            "valle_utterances", "Requests to speak that came to an end", ["outcome"], registry=self._registry
        )
        self.audio = Counter("valle_audio_seconds", "Speech made, seconds", registry=self._registry)
        self.first_audio = Histogram(
            "valle_first_audio_seconds", "From a request to its first audio", buckets=_SECONDS, registry=self._registry
        )
        self.waiting = Gauge("valle_waiting", "Requests that wait to be spoken", registry=self._registry)
        self.speaking = Gauge("valle_speaking", "Requests that are being spoken", registry=self._registry)
        self.connections = Gauge("valle_websockets", "Open WebSocket connections", registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
