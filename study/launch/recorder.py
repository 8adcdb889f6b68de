"""The driver's side of a study: takes the workers' reports, writes the ledger, counts deaths. No Ray in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.errors import StorageError
from study.launch.progress import Progress
from study.launch.provenance import now
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS, Provenance, Record
from study.ledger.runs import Pack
from study.redaction import mask
from study.training import checkpoints

MOST_DEATHS = 5
"""A pack whose worker dies so often without a new epoch has failed; before that, deaths are no failures."""

ERROR_LINES = 12
"""Last lines of what Ray says of a death that a failed run's record keeps."""


class Driver:
    """Receives what workers report of their packs, named by index, and is the only writer of records."""

    def __init__(self, ledger: Ledger, packs: Sequence[Pack], ended: Mapping[str, Record], progress: Progress) -> None:
        """`ended` are the records that exist and are never rewritten."""
        self._ledger = ledger
        self._packs = packs
        self._ended = dict(ended)
        self._progress = progress
        self._starts = [0] * len(packs)
        self._deaths = [0] * len(packs)
        self._furthest = [0] * len(packs)
        self._alive: set[int] = set()
        self._recorded: set[int] = set()
        self._over: set[int] = set()
        self.stopped: str | None = None
        """Why the study cannot go on, once the storage has refused."""

    def receive(self, index: int, message: Mapping[str, Any]) -> None:
        """Take one report of the pack's worker: `started`, `epoch`, `done`, `failed` or `stopped`."""
        if self.stopped or index in self._over:
            return
        if index in self._recorded:
            # Its worker died between its last report and its end, and Tune has started it again.
            self._over.add(index)
            return
        if warning := message.get("warning"):
            self._progress.warn(warning)
        try:
            if "started" in message:
                self._started(index, message["node"])
            elif "epoch" in message:
                self._epoch(index, message["epoch"])
            elif "done" in message:
                self._done(index, message)
            elif "failed" in message:
                self._fail(index, Provenance.model_validate(message["failed"]))
            else:
                self.stopped = message["stopped"]
        except StorageError as error:
            self.stopped = str(error)

    def gives_up(self, index: int) -> bool:
        """Whether the pack has failed, or was started again after its end: it is not to be trained."""
        return index in self._over

    def died(self, index: int, error: str) -> None:
        """The pack's worker died, or could not even start; `error` is what Ray says of it."""
        if self.stopped or index in self._over or index in self._recorded:
            return
        pack, lines = self._packs[index], mask(error).strip().splitlines()[-ERROR_LINES:]
        why = "the kernel may have ended it for memory"
        if index not in self._alive:
            why = f"it could not start: {''.join(lines[-1:])}"
            self._progress.warn(f"pack {pack.pack_id}: its worker died: {why}")
        self._alive.discard(index)
        self._deaths[index] += 1
        if self._deaths[index] < MOST_DEATHS:
            return
        lines.append(f"its worker died {MOST_DEATHS} times without a new epoch; {why}")
        try:
            ended = dict(error="\n".join(lines), ended_at=now())
            self._fail(index, Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs), **ended))
        except StorageError as refused:
            self.stopped = str(refused)

    def _started(self, index: int, node: str) -> None:
        self._progress.started(index)
        self._alive.add(index)
        if self._starts[index] > 0:
            self._progress.warn(f"pack {self._packs[index].pack_id}: its worker died; started again on {node}")
        self._starts[index] += 1

    def _epoch(self, index: int, epoch: int) -> None:
        # An epoch trained again, for want of a checkpoint, is no progress.
        if epoch > self._furthest[index]:
            self._furthest[index] = epoch
            self._deaths[index] = 0
        self._progress.epoch(index, epoch)

    def _done(self, index: int, message: Mapping[str, Any]) -> None:
        for text, predictions in message["records"]:
            self._write(index, Record.model_validate_json(text), predictions)
        checkpoints.delete(self._ledger.storage, self._packs[index])
        self._recorded.add(index)
        self._progress.ended(index, self._states(index))

    def _fail(self, index: int, provenance: Provenance) -> None:
        self._over.add(index)
        pack = self._packs[index]
        for planned in pack.runs:
            nothing = dict.fromkeys(METRICS, ())
            record = Record(**dict(planned), state="failed", epochs=nothing, provenance=provenance)
            self._write(index, record)
        checkpoints.delete(self._ledger.storage, pack)
        self._progress.warn(f"pack {pack.pack_id} failed: {(provenance.error or '').splitlines()[-1]}")
        self._progress.ended(index, self._states(index))

    def _write(self, index: int, record: Record, predictions: Mapping[str, Any] | None = None) -> None:
        if record.run_id in self._ended:
            return
        attempts = record.provenance.attempts + max(0, self._starts[index] - 1)
        provenance = record.provenance.model_copy(update={"attempts": attempts})
        record = record.model_copy(update={"provenance": provenance})
        self._ledger.write_record(record, predictions)
        self._ended[record.run_id] = record

    def _states(self, index: int) -> list[str]:
        return [self._ended[planned.run_id].state for planned in self._packs[index].runs]
