"""The server under load: many requests at once on loopback, against `more-r1 serve` in a process of its own.

    python benchmarks/serve.py [--requests 2000] [--concurrency 32] [--queue 64] [--pairs 2] [--threads N]

Documents are those of the embedded benchmark, drawn for it, each with its first pairs; each is another one until there are no
more. A client that gets 429 waits as long as Retry-After says, and asks again; what it waited is part of its time. Printed
are the answers by status, requests a second, the times from the first try to the answer, and the memory of the server (RSS)
at the start, after every quarter, and at the end. Exit code 1 if any answer was neither 200 nor 429. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

from more_r1.formats import load_documents
from more_r1.synthetic.benchmark import write_benchmark

LOCAL = threading.local()


class Load:
    """What the clients saw."""

    def __init__(self, port: int, pid: int, total: int) -> None:
        self.port, self.pid, self.total = port, pid, total
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.memory = [resident(pid)]
        self._lock = threading.Lock()

    def ask(self, body: bytes) -> None:
        """Until there is an answer that is not 429."""
        begin = time.perf_counter()
        while True:
            status, wait = self._once(body)
            with self._lock:
                self.statuses[status] += 1
            if status != "429":
                break
            time.sleep(wait)
        with self._lock:
            self.seconds.append(time.perf_counter() - begin)
            if len(self.seconds) % -(-self.total // 4) == 0 or len(self.seconds) == self.total:
                self.memory.append(resident(self.pid))

    def _once(self, body: bytes) -> tuple[str, float]:
        """The status, and how long to wait."""
        try:
            connection = getattr(LOCAL, "connection", None) or HTTPConnection("127.0.0.1", self.port, timeout=600)
            LOCAL.connection = connection
            connection.request("POST", "/extract", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = json.loads(answer.read())
            if answer.status == 200 and not said["predictions"]:
                return "200 without predictions", 0
            return str(answer.status), float(answer.headers.get("Retry-After", 0))
        except (OSError, HTTPException, ValueError) as error:
            LOCAL.connection = None
            return type(error).__name__, 0


def resident(pid: int) -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def bodies(count: int, pairs: int) -> list[bytes]:
    """Requests with that many pairs at most."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in write_benchmark(Path(folder), max(20, min(count, 2000) * 10 // 7), 5):
            pass
        documents = load_documents(folder, "train")[:count]
        made = []
        for document in documents:
            record = document.model_dump(mode="json", exclude={"image"})
            record["pairs"] = [{"object": pair.object, "entity": pair.entity} for pair in document.pairs[:pairs]]
            picture = base64.b64encode(Path(str(document.image)).read_bytes()).decode("ascii")
            made.append(json.dumps({**record, "image": f"data:image/png;base64,{picture}"}).encode())
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    sent = bodies(given.requests, given.pairs)
    threads = [] if given.threads is None else ["--threads", str(given.threads)]
    command = [sys.executable, "-u", "-m", "more_r1", "serve", "--port", "0", "--queue", str(given.queue), *threads]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+)", server.stdout.readline())
        if found is None:
            return 1
        load = Load(int(found[1]), server.pid, given.requests)
        load.ask(sent[0])  # the first is slow
        load.seconds.clear()
        load.statuses.clear()
        load.memory = [resident(server.pid)]
        begin = time.perf_counter()
        with ThreadPoolExecutor(given.concurrency) as pool:
            list(pool.map(load.ask, (sent[number % len(sent)] for number in range(given.requests))))
        took = time.perf_counter() - begin
    finally:
        server.terminate()
        server.wait(60)
    print(f"{given.requests} requests of at most {given.pairs} pairs, concurrency {given.concurrency}, queue {given.queue}")
    print("answers:", ", ".join(f"{count} x {status}" for status, count in sorted(load.statuses.items())))
    p50, p99 = np.percentile(load.seconds, (50, 99))
    print(f"{given.requests / took:.1f} requests a second; p50 {p50:.2f} s, p99 {p99:.2f} s, longest {max(load.seconds):.2f} s")
    print("memory of the server in MiB:", ", ".join(f"{each:.0f}" for each in load.memory))
    return int(bool(set(load.statuses) - {"200", "429"}))


if __name__ == "__main__":
    sys.exit(main())
