"""The driver's side of a study: receives the workers' messages, writes the ledger, counts deaths. No Ray in here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from study.errors import StorageError
from study.launch.messages import ERROR_LINES, Done, Epoch, Failed, Message, Started, Stopped, Unfit
from study.launch.progress import Progress
from study.launch.provenance import now
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS, Provenance, Record, State
from study.ledger.runs import Pack
from study.redaction import mask
from study.training import checkpoints

MOST_DEATHS = 5
"""A pack whose worker dies this often without a new epoch has failed; fewer deaths are not failures."""

AT_ONCE = 32
"""Packs whose records are written to an object store beside one another."""


@dataclass
class PackState:
    """What the driver knows of one pack."""

    pack: Pack
    index: int
    starts: int = 0
    """Workers that have started it in this launch."""
    attempts: int = 0
    """How often its training was started in earlier launches."""
    deaths: int = 0
    """Of its workers, since the last new epoch."""
    furthest: int = 0
    """The last epoch that any worker has ended."""
    turned_away: bool = False
    """Its last worker's node was not fit for it: that worker's end is no death."""
    alive: bool = False
    """Whether a worker has it now, as far as we know."""
    received: bool = False
    """Its results have arrived, and its records are being written or there."""
    recorded: bool = False
    over: bool = False
    """It has failed, or was started again after its end: it must not be trained."""


@dataclass(frozen=True)
class Writing:
    """Records of a pack that are on their way to the ledger."""

    state: PackState
    ended: Mapping[str, State]
    """What becomes of its runs, by run_id."""
    written: Future[None]


def devices(records: Iterable[Record]) -> set[str]:
    """The kinds of devices that records were trained on."""
    return {r.provenance.device for r in records if r.provenance.device and r.state != "failed"}


def same_kind(device: str, others: set[str]) -> bool:
    """Whether a device may train beside those: CPUs go with CPUs, a GPU with its like, or with one of no name."""
    return not others or device in others or ("cuda" in others and device != "cpu")


class Recorder:
    """Receives the messages of packs, identified by index; the only writer of records."""

    def __init__(
        self,
        ledger: Ledger,
        packs: Sequence[Pack],
        ended: Mapping[str, Record],
        progress: Progress,
        *,
        mix_devices: bool = False,
    ) -> None:
        """`ended` are the records that exist and are never rewritten.

        Unless `mix_devices`, all packs are trained on one kind of device: that of the records, or of the first pack.
        """
        self._ledger = ledger
        self._states = [PackState(pack, index) for index, pack in enumerate(packs)]
        self._ended: dict[str, State] = {run_id: record.state for run_id, record in ended.items()}
        self._progress = progress
        self.stopped: str | None = None
        """Why the study cannot go on, once the storage has refused."""
        self.published = 0
        """Runs that W&B has taken whole, as far as workers have told."""
        self.unfit: dict[str, str] = {}
        """Machines that cannot train its packs, and why."""
        self._devices = devices(ended.values())
        self._mix_devices = mix_devices
        # A disk has no distance: what is written there is there before anything else happens.
        self._at_once = 1 if ledger.storage.local else AT_ONCE
        self._writers = ThreadPoolExecutor(self._at_once, "recorder")
        self._writing: deque[Writing] = deque()
        """Packs being written, oldest first."""
        self._closed = False
        self._receiving = threading.RLock()

    @property
    def complete(self) -> bool:
        """Whether every pack has ended."""
        return all(state.recorded or state.over for state in self._states) and not self._writing

    @property
    def idle(self) -> bool:
        """Whether no worker has a pack, as far as is known."""
        return not any(state.alive and not state.received and not state.over for state in self._states)

    def finish(self) -> None:
        """Wait until all that was received is written."""
        with self._receiving:
            self._settle(0)

    def close(self) -> bool:
        """Write what was received, and record nothing from then on; False if that was so already."""
        with self._receiving:
            before, self._closed = self._closed, True
            self._settle(0)
            return not before

    def receive(self, index: int, message: Message) -> None:
        """Handle one message of the pack's worker."""
        with self._receiving:
            if not self._closed:
                self._receive(index, message)

    def _receive(self, index: int, message: Message) -> None:
        state = self._states[index]
        if self.stopped or state.over:
            return
        if state.received:
            # Its worker died between its last message and its end, and Tune has started it again.
            state.over = True
            return
        if isinstance(message, Epoch | Done) and message.warning:
            self._progress.warn(message.warning)
        self._settle(self._at_once - 1)
        match message:
            case Started():
                self._started(state, message)
            case Epoch(epoch=epoch):
                self._epoch(state, epoch)
            case Done(records=records, published=published):
                self.published += published
                self._write(state, records)
            case Failed(provenance=provenance):
                self._fail(state, provenance)
            case Stopped(reason=reason):
                self.stopped = reason
            case Unfit(node=node, reason=reason):
                self._turn_away(state, node, reason)

    def cannot_start(self, index: int, node: str, reason: str) -> None:
        """The pack's worker could not start, since its node lacks what it takes: that is no death."""
        with self._receiving:
            self._turn_away(self._states[index], node, reason)

    def turns_away(self, index: int) -> bool:
        """Whether the pack's worker is to be ended, since its node is not fit for it."""
        return self._states[index].turned_away

    def gives_up(self, index: int) -> bool:
        """Whether the pack has failed, or was started again after its end: it must not be trained."""
        return self._states[index].over

    def died(self, index: int, error: str) -> None:
        """The pack's worker died, or could not even start; `error` is Ray's account of it."""
        with self._receiving:
            state = self._states[index]
            if not (self._closed or self.stopped or state.over or state.received):
                self._died(state, error)

    def _died(self, state: PackState, error: str) -> None:
        if state.turned_away:
            state.turned_away = False
            return
        pack, lines = state.pack, mask(error).strip().splitlines()[-ERROR_LINES:]
        why = "the kernel may have ended it for memory"
        if not state.alive:
            why = f"it could not start: {''.join(lines[-1:])}"
            self._progress.warn(f"pack {pack.pack_id}: its worker died: {why}")
        state.alive = False
        state.deaths += 1
        if state.deaths < MOST_DEATHS:
            return
        lines.append(f"its worker died {MOST_DEATHS} times without a new epoch; {why}")
        error = "\n".join(lines)
        self._fail(state, Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs), error=error, ended_at=now()))

    def _turn_away(self, state: PackState, node: str, reason: str) -> None:
        state.turned_away = True
        if self.unfit.get(node) != reason:
            self._progress.warn(f"{node} is not used from now on: {reason}")
        self.unfit[node] = reason

    def _started(self, state: PackState, message: Started) -> None:
        if not self._mix_devices and not same_kind(message.device, self._devices):
            others = ", ".join(sorted(self._devices))
            reason = f"it would train on {message.device}, and the study's runs were trained on {others}"
            self._turn_away(state, message.node, f"{reason}; --mix-devices lets both")
            return
        self._devices.add(message.device)
        self._progress.started(state.index)
        state.alive = True
        if state.starts > 0:
            self._progress.warn(f"pack {state.pack.pack_id}: its worker died; started again on {message.node}")
        else:
            state.attempts = message.attempts
        state.starts += 1

    def _epoch(self, state: PackState, epoch: int) -> None:
        # An epoch trained again for lack of a checkpoint is not progress.
        if epoch > state.furthest:
            state.furthest = epoch
            state.deaths = 0
        self._progress.epoch(state.index, epoch)

    def _fail(self, state: PackState, provenance: Provenance) -> None:
        state.over = True
        nothing = dict.fromkeys(METRICS, ())
        failed = [
            (Record(**dict(planned), state="failed", epochs=nothing, provenance=provenance), None)
            for planned in state.pack.runs
        ]
        self._progress.warn(f"pack {state.pack.pack_id} failed: {(provenance.error or '').splitlines()[-1]}")
        self._write(state, failed)

    def _write(self, state: PackState, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        """Begin to write the records of a pack's runs that have none yet, and to remove its checkpoint after them."""
        state.received = True
        fresh = []
        for record, predictions in ended:
            if record.run_id not in self._ended:
                attempts = state.attempts + max(0, state.starts - 1) + record.provenance.attempts
                provenance = record.provenance.model_copy(update={"attempts": attempts})
                fresh.append((record.model_copy(update={"provenance": provenance}), predictions))
        # Not the records themselves: those of a hundred thousand runs take a gigabyte.
        states = {record.run_id: record.state for record, _ in fresh}
        self._writing.append(Writing(state, states, self._writers.submit(self._put, state.pack, fresh)))
        self._settle(self._at_once - 1)

    def _put(self, pack: Pack, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        self._ledger.write_records(ended)
        checkpoints.delete(self._ledger.storage, pack)

    def _settle(self, most: int) -> None:
        """Take note of what has been written, and wait until at most so many packs are still being written."""
        while self._writing and (len(self._writing) > most or self._writing[0].written.done()):
            writing = self._writing.popleft()
            try:
                writing.written.result()
            except StorageError as error:
                self.stopped = self.stopped or str(error)
                continue
            state = writing.state
            state.recorded = True
            self._ended |= writing.ended
            self._progress.ended(state.index, [self._ended[planned.run_id] for planned in state.pack.runs])
