"""The parts of an archive, done by the processes of a Ray cluster: each holds the model and writes whole parts.

Source, model and archive are named by path, so the machines must see the same files. A part that a lost process did not
write is asked of another one by Ray, or done by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from more_r1.extraction.archive import Archive, ArchiveError, Parts, part, write_part
from more_r1.extraction.job import Job


def work_on_cluster(
    job: Job, size: int, archive: Archive, address: str, processes: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """As archive.work_through, on a cluster: `address` as ray.init takes it, `local` for one on this machine.

    `progress` is told how many parts are done. Raises ArchiveError if Ray is not installed or the cluster not there.
    """
    try:
        import ray
    except ImportError as error:
        raise ArchiveError("--ray needs Ray; pip install 'more-r1[scale]'") from error
    missing = archive.missing(size)
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise ArchiveError(f"--ray {address}: no cluster there ({str(error).splitlines()[0]})") from error
    try:
        numbers = ray.data.from_items([{"part": number} for number in missing])
        done = numbers.map_batches(
            _Process,
            fn_constructor_kwargs={"job": job.model_dump(mode="json"), "folder": str(archive.folder.resolve())},
            batch_size=1,
            concurrency=processes,
        )
        for count, _ in enumerate(done.iter_rows(), 1):
            if progress is not None:
                progress(count, len(missing))
    finally:
        ray.shutdown()


class _Process:
    """One process of the cluster: the model is loaded once, the source gone through once."""

    def __init__(self, job: dict[str, Any], folder: str) -> None:
        self._folder = Path(folder)
        self._parts = Parts((given := Job.model_validate(job)).open())
        self._worker = given.start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number in batch["part"]:
            write_part(part(self._folder, int(number)), self._worker(self._parts[int(number)]))
        return batch
