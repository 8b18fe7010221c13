"""Four processes pass ragged text through one queue, as the stages of RL training do.

    prompts ──► answers (two processes) ──► trainer
      puts        get the prompts, add        gets complete batches, checks every byte,
      prompts     responses and scores        clears them

The text is real: the long topics of Python's own documentation, as bytes, salted so
that no two rows are alike. The queue carries the data; what the stages hand to each
other is only which rows are meant, a KVBatchMeta.

    python examples/text_pipeline.py [--rows 20480] [--batch 256] [--spread]

With --spread they are actors of the running Ray cluster, each on another of its nodes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from tensordict import TensorDict

import transfer_queue as tq

PARTITION = "train"
ANSWERERS = 2
WAIT_S = 60.0  # Longest that a stage waits for the one before it.
BATCHES_AHEAD = 16  # How far the prompts may run ahead of the trainer.


@dataclass
class Report:
    """What one stage did: seconds of each call by name, and what it moved."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    bytes_put: int = 0
    bytes_got: int = 0
    rows: int = 0

    @contextmanager
    def timed(self, call: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds.setdefault(call, []).append(time.perf_counter() - start)


# ---- The text ------------------------------------------------------------------------


LONG_TOPICS = sorted(
    text.encode()[:16384] for text in topics.values() if len(text) >= 2000
)


def text_of(row: int, kind: str) -> bytes:
    """Row `row`'s prompt or response: the same bytes in every process."""
    salt = f"<{kind} {row}> ".encode()
    return salt + LONG_TOPICS[(row * 7 + len(kind)) % len(LONG_TOPICS)]


def as_column(texts: list[bytes]) -> torch.Tensor:
    """One jagged tensor of bytes: row i is texts[i]."""
    values = torch.from_numpy(np.frombuffer(b"".join(texts), np.uint8).copy())
    lengths = torch.tensor([0, *map(len, texts)])
    return torch.nested.nested_tensor_from_jagged(values, lengths.cumsum(0))


def score_of(response: bytes) -> float:
    return sum(response[:64]) / 64


def rows_of(keys: list[str]) -> list[int]:
    return [int(key.removeprefix("row_")) for key in keys]


# ---- The stages ----------------------------------------------------------------------


def put_prompts(rows: int, batch: int, outbox: Any, room: Any) -> Report:
    report = Report()
    for first in range(0, rows, batch):
        if not room.acquire(timeout=WAIT_S):
            raise TimeoutError("the trainer does not keep up")
        numbers = range(first, min(rows, first + batch))
        texts = [text_of(row, "prompt") for row in numbers]
        fields = TensorDict({"prompt": as_column(texts)}, batch_size=[len(numbers)])
        with report.timed("put prompts"):
            meta = tq.kv_batch_put(
                keys=[f"row_{row}" for row in numbers],
                partition_id=PARTITION,
                fields=fields,
                tags=[{"status": "pending"} for _ in numbers],
            )
        report.bytes_put += sum(map(len, texts))
        outbox.put(meta)
    for _ in range(ANSWERERS):
        outbox.put(None)
    return report


def answer(inbox: Any, outbox: Any) -> Report:
    report = Report()
    while (meta := inbox.get(timeout=WAIT_S)) is not None:
        with report.timed("get prompts"):
            prompts = tq.kv_batch_get_by_meta(meta, select_fields=["prompt"])
        report.bytes_got += prompts["prompt"].values().numel()
        texts = [text_of(row, "response") for row in rows_of(meta.keys)]
        scores = torch.tensor([score_of(text) for text in texts])
        fields = TensorDict(
            {"response": as_column(texts), "score": scores}, batch_size=[len(texts)]
        )
        with report.timed("put responses, scores"):
            meta = tq.kv_batch_put(
                keys=meta.keys,
                partition_id=PARTITION,
                fields=fields,
                tags=[{"status": "done"}] * len(texts),
            )
        report.bytes_put += sum(map(len, texts)) + scores.nbytes
        outbox.put(meta)
    outbox.put(None)
    return report


def train(inbox: Any, room: Any, progress: Any) -> Report:
    report = Report()
    answerers = ANSWERERS
    while answerers:
        meta = inbox.get(timeout=WAIT_S)
        if meta is None:
            answerers -= 1
            continue
        with report.timed("get complete batch"):
            batch = tq.kv_batch_get_by_meta(meta)
        report.bytes_got += check_batch(rows_of(meta.keys), batch)
        with report.timed("clear batch"):
            tq.kv_clear(keys=meta.keys, partition_id=PARTITION)
        report.rows += len(meta)
        room.release()
        progress.put(len(meta))
    return report


def check_batch(rows: list[int], batch: TensorDict) -> int:
    """Compare every byte with what was put; the number of bytes."""
    checked = 0
    for kind in ("prompt", "response"):
        expected: Any = as_column([text_of(row, kind) for row in rows])
        column: Any = batch[kind]
        same = torch.equal(column.offsets(), expected.offsets())
        if not (same and torch.equal(column.values(), expected.values())):
            raise ValueError(f"{kind} of rows {rows[0]} to {rows[-1]} is not as put")
        checked += column.values().numel()
    scores = torch.tensor([score_of(text_of(row, "response")) for row in rows])
    if not torch.equal(batch["score"], scores):
        raise ValueError(f"scores of rows {rows[0]} to {rows[-1]} are not as put")
    return checked + scores.nbytes


# ---- Processes and the report --------------------------------------------------------


def run_stage(
    stage: Callable[..., Report], reports: Any, all_ready: Any, *arguments: Any
) -> None:
    """The whole life of a stage's process."""
    torch.set_num_threads(1)
    try:
        tq.init()
        all_ready.wait(WAIT_S)
        report = stage(*arguments)
        tq.close()
        reports.put(report)
    except BaseException as error:
        reports.put(error)
        raise


def run_pipeline(rows: int, batch: int, console: Console) -> tuple[list[Report], float]:
    # A server that has imported torch once forks all the stages.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "tensordict", "transfer_queue.interface"])
    prompts, answers = context.Queue(), context.Queue()
    reports, progress = context.Queue(), context.Queue()
    room = context.Semaphore(BATCHES_AHEAD)
    all_ready = context.Barrier(1 + ANSWERERS + 1 + 1)
    stages = [
        (put_prompts, reports, all_ready, rows, batch, prompts, room),
        *[(answer, reports, all_ready, prompts, answers)] * ANSWERERS,
        (train, reports, all_ready, answers, room, progress),
    ]
    processes = [context.Process(target=run_stage, args=args) for args in stages]
    for process in processes:
        process.start()
    try:
        all_ready.wait(WAIT_S)
        start = time.perf_counter()
        show_progress(rows, progress, lambda: failure_among(reports), console)
        elapsed = time.perf_counter() - start
        results = [reports.get(timeout=WAIT_S) for _ in processes]
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            raise failed[0]
        for process in processes:
            process.join(WAIT_S)
        return results, elapsed
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


# ---- On many nodes -------------------------------------------------------------------


class Tokens:
    """A semaphore that actors on any node share."""

    def __init__(self, count: int) -> None:
        from ray.util.queue import Queue

        self._queue = Queue()
        self._queue.put_nowait_batch([None] * count)

    def acquire(self, timeout: float) -> bool:
        try:
            self._queue.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        self._queue.put(None)


class StageActor:
    """A stage's process on one of Ray's nodes."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        tq.init()

    def node(self) -> str:
        import ray

        address: Any = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return str(address)

    def run(self, stage: Callable[..., Report], *arguments: Any) -> Report:
        report = stage(*arguments)
        tq.close()
        return report


def spread_actors(count: int) -> list[Any]:
    """So many, on one node after the other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["NodeID"] for node in nodes if node["Alive"]]
    return [
        ray.remote(StageActor)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                alive[i % len(alive)], soft=False
            ),
        )
        .remote()
        for i in range(count)
    ]


def run_spread(rows: int, batch: int, console: Console) -> tuple[list[Report], float]:
    import ray
    from ray.util.queue import Queue

    prompts, answers, progress = Queue(), Queue(), Queue()
    room = Tokens(BATCHES_AHEAD)
    stages: list[tuple[Any, ...]] = [
        (put_prompts, rows, batch, prompts, room),
        *[(answer, prompts, answers)] * ANSWERERS,
        (train, answers, room, progress),
    ]
    actors = spread_actors(len(stages))
    where = ray.get([actor.node.remote() for actor in actors])
    console.print("stages on", ", ".join(where))
    start = time.perf_counter()
    running = [
        actor.run.remote(*stage) for actor, stage in zip(actors, stages, strict=True)
    ]
    show_progress(rows, progress, lambda: failure_of(running), console)
    elapsed = time.perf_counter() - start
    return ray.get(running, timeout=WAIT_S), elapsed


def failure_of(running: list[Any]) -> BaseException | None:
    import ray

    ended, _ = ray.wait(running, num_returns=len(running), timeout=0)
    try:
        ray.get(ended)
    except BaseException as error:
        return error
    return None


# ---- What is shown -------------------------------------------------------------------


def show_progress(
    rows: int,
    progress: Any,
    failure: Callable[[], BaseException | None],
    console: Console,
) -> None:
    """Until the trainer has seen all rows, or a stage has failed."""
    visible = console.is_terminal and not os.environ.get("NO_COLOR")
    columns = (
        "[progress.description]{task.description}",
        *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
    )
    with Progress(*columns, console=console, disable=not visible) as bar:
        task = bar.add_task("rows trained on", total=rows)
        done, last_news = 0, time.monotonic()
        while done < rows:
            try:
                news = progress.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() - last_news > WAIT_S:
                    raise TimeoutError("no batch came through for a minute") from None
                if failed := failure():
                    raise failed from None
                continue
            done, last_news = done + news, time.monotonic()
            bar.update(task, completed=done)


def failure_among(reports: Any) -> BaseException | None:
    """A stage that failed early; reports of stages that ended well are kept."""
    kept = []
    failure = None
    while failure is None and not reports.empty():
        result = reports.get(timeout=1)
        if isinstance(result, BaseException):
            failure = result
        else:
            kept.append(result)
    for result in kept:
        reports.put(result)
    return failure


def print_report(reports: list[Report], elapsed: float, console: Console) -> None:
    rows = sum(report.rows for report in reports)
    moved_put = sum(report.bytes_put for report in reports)
    moved_got = sum(report.bytes_got for report in reports)
    summary = Table(title="text pipeline", title_justify="left")
    for heading in ("rows", "MB put", "MB got", "seconds", "GB/s"):
        summary.add_column(heading, justify="right")
    summary.add_row(
        f"{rows:,}",
        f"{moved_put / 1e6:,.1f}",
        f"{moved_got / 1e6:,.1f}",
        f"{elapsed:.1f}",
        f"{(moved_put + moved_got) / elapsed / 1e9:.2f}",
    )
    console.print(summary)
    calls = Table()
    calls.add_column("call")
    for heading in ("times", "p50 ms", "p99 ms"):
        calls.add_column(heading, justify="right")
    for name in dict.fromkeys(name for report in reports for name in report.seconds):
        seconds = [s for report in reports for s in report.seconds.get(name, [])]
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        calls.add_row(name, f"{len(seconds):,}", f"{p50:.2f}", f"{p99:.2f}")
    console.print(calls)


def main() -> int:
    parser = argparse.ArgumentParser(description="Ragged text through one queue.")
    parser.add_argument("--rows", type=int, default=20_480)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--spread", action="store_true", help="over all Ray nodes")
    options = parser.parse_args()
    console = Console(no_color=bool(os.environ.get("NO_COLOR")))
    tq.init()
    try:
        run = run_spread if options.spread else run_pipeline
        reports, elapsed = run(options.rows, options.batch, console)
    finally:
        tq.close()
    print_report(reports, elapsed, console)
    console.print("every byte that came out is the byte that went in")
    return 0


if __name__ == "__main__":
    sys.exit(main())
