"""Numbers of a server, in the format of Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from seedjax.inference.in_flight import Completion

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"seedjax_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"seedjax_{name}", text, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            name = f"seedjax_{name}_seconds"
            return Histogram(name, text, registry=registry, buckets=SECONDS)

        self.responses = counter("responses", "HTTP responses", "path", "status")
        self.completions = counter("completions", "Finished", "finish_reason")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = counter("cached_tokens", "Those taken from a slot")
        self.new_tokens = counter("new_tokens", "Tokens of completions")
        self.steps = counter("denoising_steps", "Denoising steps of completions")
        self.cancelled = counter("cancelled", "Requests whose client left")
        self.timeouts = counter("timeouts", "Requests that took too long")
        self.refused = counter("refused", "Requests refused by a full queue")
        self.failures = counter("failures", "Blocks that failed to decode")
        self.waiting = gauge("waiting_requests", "Requests in the queue")
        self.running = gauge("running_requests", "Requests in slots")
        self.programs = gauge("compiled_programs", "Compiled programs")
        self.first_text_seconds = seconds("first_text", "From arrival to first text")
        self.request_seconds = seconds("request", "From arrival to the end")

    def finish(self, completion: Completion, seconds: float) -> None:
        """Counts a completion that took so many seconds, waiting included."""
        self.completions.labels(completion.finish_reason).inc()
        self.prompt_tokens.inc(completion.prompt_tokens)
        self.cached_tokens.inc(completion.cached_tokens)
        self.new_tokens.inc(len(completion.tokens))
        self.steps.inc(completion.steps)
        self.request_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
