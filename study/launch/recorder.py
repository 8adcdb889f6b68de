"""The driver's side of a study: receives the workers' messages, writes the ledger, counts deaths. No Ray in here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from study.errors import StorageError
from study.launch.messages import ERROR_LINES, Broken, Done, Epoch, Failed, Message, Started, Stopped, Unfit
from study.launch.progress import Progress
from study.launch.provenance import node as here
from study.launch.provenance import now
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS, Provenance, Record, State
from study.ledger.runs import Pack
from study.ledger.storage import TEMPORARY
from study.redaction import mask
from study.training import checkpoints

MOST_DEATHS = 5
"""A pack whose worker dies this often without a new epoch has failed, if not for its node; fewer are no failures."""

PROBE = bytes(2**24)
"""What the driver writes to see whether the storage refuses it too: as long as a checkpoint of a pack may be."""

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
    nodes: set[str] = field(default_factory=set)
    """Ids of the nodes on which they died."""
    blamed: str | None = None
    """The node that is avoided for these deaths."""
    broken: str | None = None
    """The error that has broken its last worker's device: that worker is to be ended."""
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
        self.avoided: set[str] = set()
        """Ids of the nodes on which none of its packs is to be placed; studies that take the same may share it."""
        self.elsewhere: Callable[[], bool] = bool
        """Whether a pack can be placed, with these nodes avoided."""
        self._refused: str | None = None
        """The machine to which the storage was the first to refuse something."""
        self.devices = devices(ended.values())
        """The kinds of devices that its runs are trained on; studies of one launch may share it."""
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

    def receive(self, index: int, message: Message, node: str = "") -> None:
        """Handle one message of the pack's worker, which is on the node of this id."""
        with self._receiving:
            if not self._closed:
                self._receive(index, message, node)

    def _receive(self, index: int, message: Message, node: str) -> None:
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
                self._started(state, message, node)
            case Epoch(epoch=epoch):
                self._epoch(state, epoch)
            case Done(records=records, published=published):
                self.published += published
                self._write(state, records)
            case Failed(provenance=provenance):
                self._fail(state, provenance)
            case Broken(error=error):
                state.broken = error
            case Stopped(reason=reason, node=host):
                self._refuse(state, reason, host, node)
            case Unfit(node=host, reason=reason):
                self._turn_away(state, host, reason, {node})

    def cannot_start(self, index: int, host: str, reason: str, nodes: set[str]) -> None:
        """The pack's worker could not start, since its node lacks what it takes: no death, if there are other nodes."""
        with self._receiving:
            if self._avoids(nodes):
                self._turn_away(self._states[index], host, reason, nodes)

    def ends_worker(self, index: int) -> bool:
        """Whether the pack's worker is to be ended, since its node is not fit for it or its device broken."""
        state = self._states[index]
        return state.turned_away or state.broken is not None

    def gives_up(self, index: int) -> bool:
        """Whether the pack has failed, or was started again after its end: it must not be trained."""
        return self._states[index].over

    def died(self, index: int, error: str, node: str = "") -> None:
        """The pack's worker died, or could not even start; `error` is Ray's account of it, `node` where, if known."""
        with self._receiving:
            state = self._states[index]
            if not (self._closed or self.stopped or state.over or state.received):
                self._died(state, error, node)

    def _died(self, state: PackState, error: str, node: str) -> None:
        if state.turned_away:
            state.turned_away = False
            return
        pack, lines = state.pack, mask(state.broken or error).strip().splitlines()[-ERROR_LINES:]
        why = "the kernel may have ended it for memory"
        if state.broken:
            why = f"an error broke its device: {''.join(lines[-1:])}"
        elif not state.alive:
            why = f"it could not start: {''.join(lines[-1:])}"
            self._progress.warn(f"pack {pack.pack_id}: its worker died: {why}")
        state.alive, state.broken = False, None
        state.deaths += 1
        state.nodes.add(node)
        if state.deaths < MOST_DEATHS:
            return
        died = f"its worker died {MOST_DEATHS} times without a new epoch"
        if node and state.nodes == {node} and self._avoids({node}):
            # The node's fault, or the pack's? It is tried on another, and if it dies there too the node is used again.
            self._progress.warn(f"pack {pack.pack_id}: {died} on one node, which is not used from now on; {why}")
            state.deaths, state.blamed = 0, node
            return
        if state.blamed:
            self.avoided.discard(state.blamed)
        lines.append(f"{died}; {why}")
        error = "\n".join(lines)
        self._fail(state, Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs), error=error, ended_at=now()))

    def _avoids(self, nodes: set[str]) -> bool:
        """Avoid these nodes, if that leaves any."""
        before = self.avoided & nodes
        self.avoided |= nodes
        if nodes and self.elsewhere():
            return True
        self.avoided -= nodes - before
        return False

    def _refuse(self, state: PackState, reason: str, host: str, node: str) -> None:
        """The storage has refused something to a worker: only to its machine, if it is the first and we can write."""
        first = self._refused in (None, host)
        if first and host not in ("", here()) and self._writable() and self._avoids({node}):
            self._refused = host
            self._turn_away(state, host, reason, {node})
        else:
            self.stopped = reason

    def _writable(self) -> bool:
        probe = f"{TEMPORARY}probe"
        try:
            self._ledger.storage.write(probe, PROBE)
            self._ledger.storage.delete(probe)
        except StorageError:
            return False
        return True

    def _turn_away(self, state: PackState, host: str, reason: str, nodes: set[str]) -> None:
        state.turned_away = True
        self.avoided |= nodes - {""}
        if self.unfit.get(host) != reason:
            self._progress.warn(f"{host} is not used from now on: {reason}")
        self.unfit[host] = reason

    def _started(self, state: PackState, message: Started, node: str) -> None:
        if not self._mix_devices and not same_kind(message.device, self.devices):
            others = ", ".join(sorted(self.devices))
            reason = f"it would train on {message.device}, and the study's runs were trained on {others}"
            self._turn_away(state, message.node, f"{reason}; --mix-devices lets both", {node})
            return
        self.devices.add(message.device)
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
            state.deaths, state.blamed = 0, None
            state.nodes.clear()
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
