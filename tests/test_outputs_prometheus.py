"""What /metrics says is what the run counted, in a format that Prometheus' own parser reads."""

from __future__ import annotations

import http.client
import time

import numpy as np
import pytest
from live_sources import LABELS, PacedSource, SlowModel
from prometheus_client.parser import text_string_to_metric_families

from mma_edge.live import LivePipeline
from mma_edge.live.report import snapshot
from mma_edge.outputs.follower import QUEUE
from mma_edge.outputs.mqtt import Broker, MqttPublisher
from mma_edge.outputs.prometheus import AGES_S, OF_SOURCES, Metrics
from mma_edge.pipeline import StreamOptions
from mma_edge.service import HealthServer
from mma_edge.types import Emotion
from mma_edge.web.binding import Binding
from mma_edge.web.security import Access
from mma_edge.web.server import WebServer

pytestmark = pytest.mark.wall_clock

ODD = 'a "quoted"\\ name\nof two lines'


def parsed(text: str) -> dict[tuple, float]:
    """(sample, its labels) -> value, after checking what every exporter must keep to."""
    values = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type != "unknown", family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in values
            values[key] = sample.value
    return values


def answer(source: str, age_ms: float = 100.0) -> Emotion:
    return Emotion(0.0, 4.0, 1, (0, 0, 9, 9), ("video",), LABELS, np.array([0.9, 0.1]), age_ms, source=source)


def test_metrics_agree_with_stats_and_there_is_one_series_for_each_source() -> None:
    sources = {"left": PacedSource(seconds=2.5, sound=True), ODD: PacedSource(seconds=2.5)}
    options, metrics = StreamOptions(window_s=1.0, hop_s=0.25, voice_gate=None, centre_fallback=True), Metrics()
    with LivePipeline(SlowModel(), sources, options) as live:
        metrics.begin(live)
        before = parsed(metrics.text())
        for emotion in live:
            metrics.write(emotion)
        values, stats = parsed(metrics.text()), snapshot(live)
    assert stats["answers"] > 10
    assert values["mma_edge_engine_calls_total",] == stats["engine"]["calls"]
    total = values["mma_edge_stage_seconds_sum", ("stage", "engine")]
    assert values["mma_edge_stage_seconds_count", ("stage", "engine")] == stats["engine"]["calls"] and total > 0
    for name, told in stats["sources"].items():
        label = ("source", name)
        for metric, field in (
            ("frames_total", "frames"),
            ("frames_dropped_total", "dropped_frames"),
            ("windows_total", "windows"),
            ("windows_replaced_total", "replaced"),
            ("answers_total", "answers"),
            ("reopened_total", "reopened"),
            ("faces", "faces"),
        ):
            assert values[f"mma_edge_{metric}", label] == told[field], metric
        assert values["mma_edge_sound_seconds_total", label] == pytest.approx(told["sound_s"], abs=1e-3)
        assert values["mma_edge_running", label] == 0 and before["mma_edge_running", label] == 1
        arrived_s = values["mma_edge_last_frame_timestamp_seconds", label]
        assert time.time() - arrived_s == pytest.approx(told["frame_age_s"], abs=0.5)
        assert values["mma_edge_labels_total", ("label", "sad"), label] == told["answers"]
        assert before["mma_edge_labels_total", ("label", "happy"), label] == 0  # a rate needs a beginning
        assert values["mma_edge_answer_age_seconds_count", label] == told["answers"]
        assert values["mma_edge_answer_age_seconds_sum", label] < told["answers"] * 1.0
    series = [key for key in values if ("source", "left") in key]
    assert len(series) == len(OF_SOURCES) + len(LABELS) + len(AGES_S) + 3
    assert {key[0] for key in values} >= {"process_cpu_seconds_total", "process_start_time_seconds", "mma_edge_info"}


def test_the_histogram_of_ages_is_cumulative() -> None:
    metrics = Metrics()
    with LivePipeline(SlowModel(), {"one": PacedSource()}, StreamOptions()) as live:
        metrics.begin(live)
        for age_ms in (5, 20, 21, 260, 99_000):
            metrics.write(answer("one", age_ms))
        values = parsed(metrics.text())
    buckets = {key[1][1]: n for key, n in values.items() if key[0] == "mma_edge_answer_age_seconds_bucket"}
    assert [buckets[limit] for limit in ("0.02", "0.05", "0.2", "0.3", "10.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert list(buckets.values()) == sorted(buckets.values())
    assert values["mma_edge_answer_age_seconds_sum", ("source", "one")] == pytest.approx(99.306)


def asked(port: int) -> dict[tuple, float]:
    """What a server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = parsed(response.read().decode())
    connection.close()
    return values


def test_a_page_serves_them_too_and_losses_of_other_outputs_are_among_them() -> None:
    publisher = MqttPublisher(Broker.of("mqtt://host"))
    metrics = Metrics([publisher, Metrics()])
    for number in range(QUEUE + 3):
        publisher.put(("topic", str(number)))
    server = WebServer(Access(Binding(port=0)), metrics.set_up)
    try:
        assert asked(server.port)["mma_edge_output_dropped_total", ("output", "--mqtt")] == 3
    finally:
        server.close()


def test_the_port_of_health_serves_the_metrics_and_costs_the_run_little() -> None:
    metrics = Metrics()
    with LivePipeline(SlowModel(), {"one": PacedSource()}, StreamOptions()) as live:
        metrics.begin(live)
        with HealthServer(("127.0.0.1", 0), lambda: None, metrics.text) as server:
            assert ("mma_edge_running", ("source", "one")) in asked(server.port)
        start_s = time.process_time()
        for _ in range(100):
            metrics.text()
        # Each 15 s, as Prometheus asks: less than a thousandth of a core.
        assert (time.process_time() - start_s) / 100 < 0.015
