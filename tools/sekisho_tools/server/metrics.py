"""Counters in the text format of Prometheus. Few, with few labels, so that nobody can make them many."""

from __future__ import annotations

import bisect
import os
import time
from collections import defaultdict

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram in seconds."""


class Metrics:
    """What the process has done since it began."""

    def __init__(self) -> None:
        self.began = time.time()
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.latency: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self.seconds: dict[str, float] = defaultdict(float)
        self.sent_bytes = 0
        self.limited: dict[str, int] = defaultdict(int)
        self.denied: dict[str, int] = defaultdict(int)
        self.events: dict[str, int] = defaultdict(int)

    def request(self, area: str, status: int, seconds: float) -> None:
        """One request of *area* (poll, device, download, api, page, other) was answered."""
        self.requests[area, status] += 1
        self.latency[area][bisect.bisect_left(BUCKETS, seconds)] += 1
        self.seconds[area] += seconds

    def text(self, gauges: dict[str, float]) -> str:
        """The page. *gauges* are values of this moment: name -> number."""
        lines = ["# TYPE sekisho_requests_total counter"]
        lines += [
            f'sekisho_requests_total{{area="{area}",status="{status}"}} {count}'
            for (area, status), count in sorted(self.requests.items())
        ]
        lines.append("# TYPE sekisho_request_seconds histogram")
        for area, counts in sorted(self.latency.items()):
            total = 0
            for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
                total += count
                lines.append(f'sekisho_request_seconds_bucket{{area="{area}",le="{bound}"}} {total}')
            lines.append(f'sekisho_request_seconds_sum{{area="{area}"}} {self.seconds[area]:.6f}')
            lines.append(f'sekisho_request_seconds_count{{area="{area}"}} {total}')
        for name, values in (("limited", self.limited), ("denied", self.denied), ("events", self.events)):
            lines.append(f"# TYPE sekisho_{name}_total counter")
            lines += [f'sekisho_{name}_total{{what="{what}"}} {count}' for what, count in sorted(values.items())]
        lines.append("# TYPE sekisho_artifact_bytes_total counter")
        lines.append(f"sekisho_artifact_bytes_total {self.sent_bytes}")
        for name, value in {"process_start_time_seconds": self.began, "process_pid": os.getpid(), **gauges}.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"
