"""A worker of plain generated stubs (grpcio): the whole worker protocol without an SDK.

The main thread keeps the session: it registers, beats, and registers again when the stream breaks. The relay has a thread that does
the same for work; each attempt has a thread of a pool. Section numbers are those of docs/worker-protocol.md.
"""

import hashlib
import logging
import os
import queue
import random
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from conformance.v1 import conformance_pb2 as contract
from taskmesh.v1 import message_pb2, payload_pb2, payload_pb2_grpc
from taskmesh.v1 import registry_pb2, registry_pb2_grpc, relay_pb2, relay_pb2_grpc, run_pb2

SERVICE = "conformance.v1.ConformanceActions"
INLINE_MAX = 128 * 1024
START_MAX = 512 * 1024
CHUNK = 1024 * 1024
PAYLOAD_MAX = 64 * 1024 * 1024
COMPLETED_KEPT_SECONDS = 300
GRACE_SECONDS = 30
CHANNEL = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000)]

log = logging.getLogger("worker")


class Failed(Exception):
    """An outcome of a handler that is no result."""

    def __init__(self, reason, message, retryable):
        super().__init__(message)
        self.failure = message_pb2.Failure(reason=reason, message=message, retryable=retryable)


class Stopped(Exception):
    """The handler was asked to stop."""


class Attempt:
    """One attempt, from its start to the ack of it; also what its handler sees."""

    def __init__(self, start, delivery):
        self.start = start
        self.slot = delivery
        self.delivery = delivery
        self.claiming = False
        self.began = time.time()
        self.reported_at = time.monotonic()
        self.progress = None
        self.checkpoint = None
        self.stop = threading.Event()
        self.why = None
        self.completion = None
        self.bound = False
        self.ended = False

    def wait_for(self, gate):
        while not os.path.exists(gate):
            if self.stop.wait(0.02):
                raise Stopped()

    def report(self, percent, message, checkpoint):
        self.progress = run_pb2.Progress(percent=percent, message=message)
        packed = any_pb2.Any()
        packed.Pack(checkpoint)
        self.checkpoint = packed
        self.reported_at = time.monotonic()

    def load(self, kind):
        """The checkpoint of an earlier attempt, or None (9.3)."""
        if not self.start.HasField("checkpoint"):
            return None
        packed = any_pb2.Any.FromString(self.start.checkpoint.inline)
        value = kind()
        return value if packed.Unpack(value) else None


# --- the actions -----------------------------------------------------------------------------------------------------------------

executions = {}
executions_lock = threading.Lock()


def count(key):
    with executions_lock:
        executions[key] = executions.get(key, 0) + 1
        return executions[key]


def echo(request, _attempt):
    return contract.EchoResponse(text=request.text, data=request.data, executions=count(("echo", request.text)))


def hold(request, attempt):
    times = count(("hold", request.gate))
    attempt.wait_for(request.gate)
    return contract.HoldResponse(attempt=attempt.start.attempt, executions=times)


def fail(request, attempt):
    number = attempt.start.attempt
    if request.until_attempt == 0 or number < request.until_attempt:
        raise Failed(request.reason, request.message, request.retryable)
    return contract.FailResponse(attempt=number)


def resume(request, attempt):
    before = attempt.load(contract.Position)
    if before is not None:
        return contract.ResumeResponse(position=before.position, attempt=attempt.start.attempt)
    attempt.report(50, "half way", contract.Position(position=request.position))
    attempt.wait_for(request.gate)
    raise Failed("INTERRUPTED", "the next attempt goes on", True)


def measure(request, _attempt):
    digest = hashlib.sha256(request.data).digest()
    return contract.MeasureResponse(length=len(request.data), sha256=digest, data=b"\x5a" * request.size)


def once(request, attempt):
    return contract.OnceResponse(text=request.text, attempt=attempt.start.attempt)


METHODS = {
    f"{SERVICE}/Echo": (contract.EchoRequest, echo),
    f"{SERVICE}/Hold": (contract.HoldRequest, hold),
    f"{SERVICE}/Fail": (contract.FailRequest, fail),
    f"{SERVICE}/Resume": (contract.ResumeRequest, resume),
    f"{SERVICE}/Measure": (contract.MeasureRequest, measure),
    f"{SERVICE}/Once": (contract.OnceRequest, once),
}


# --- payloads (10) ---------------------------------------------------------------------------------------------------------------


class Payloads:
    def __init__(self, address, namespace):
        self.namespace = namespace
        self.channel = grpc.insecure_channel(address, CHANNEL)
        self.stub = payload_pb2_grpc.PayloadServiceStub(self.channel)

    def read(self, payload):
        if payload.WhichOneof("data") == "reference":
            request = payload_pb2.GetPayloadRequest(namespace=self.namespace, reference=payload.reference)
            data = retried(lambda: b"".join(part.chunk for part in self.stub.GetPayload(request, timeout=120)))
        else:
            data = payload.inline
        if payload.sha256 and hashlib.sha256(data).digest() != payload.sha256:
            raise Failed("PAYLOAD_UNREADABLE", "the bytes of the input don't match their hash", True)
        return data

    def write(self, data):
        if len(data) <= INLINE_MAX:
            return payload_pb2.Payload(inline=data, size_bytes=len(data), sha256=hashlib.sha256(data).digest())
        if len(data) > PAYLOAD_MAX:
            raise Failed("PAYLOAD_TOO_LARGE", f"the output has {len(data)} bytes; at most 64 MiB", False)

        def requests():
            for at in range(0, len(data), CHUNK):
                namespace = self.namespace if at == 0 else ""
                yield payload_pb2.PutPayloadRequest(namespace=namespace, chunk=data[at : at + CHUNK])

        return retried(lambda: self.stub.PutPayload(requests(), timeout=120).payload)


def retried(call):
    """Repeats a payload call for about half a minute (10.4)."""
    for tries in range(1, 9):
        try:
            return call()
        except grpc.RpcError as error:
            final = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS)
            if final or tries == 8:
                raise Failed("PAYLOAD_UNREADABLE", f"a payload can't be moved: {error.details()}", True) from error
        pause(tries)


def pause(tries):
    """A random pause whose bound doubles up to 5 s (2.5)."""
    time.sleep(random.uniform(0, min(5.0, 0.1 * 2**tries)))


# --- work (5 to 8) ---------------------------------------------------------------------------------------------------------------


def listed(attempt):
    """Whether beats name the attempt: not while it is claimed, nor after its lease was lost."""
    return attempt.why != "LEASE_LOST" and not attempt.claiming


class Work:
    """The relay of a session and the attempts in hand. One lock guards all of it; nothing slow happens under it."""

    def __init__(self, address, namespace, slots):
        self.namespace = namespace
        self.slots = slots
        self.lock = threading.RLock()
        self.idle = threading.Condition(self.lock)
        self.channel = grpc.insecure_channel(address, CHANNEL)
        self.relay = relay_pb2_grpc.RelayServiceStub(self.channel)
        self.payloads = Payloads(address, namespace)
        self.pool = ThreadPoolExecutor(max_workers=slots)
        self.registry = None
        self.session_id = ""
        self.nonce = ""
        self.on_first_nonce = lambda: None
        self.attempts = {}
        self.completed = OrderedDict()
        self.numbers = {}
        self.next_number = 0
        self.taken = 0
        self.outgoing = None
        self.call = None
        self.stream = 0
        self.draining = False
        self.leaving = False
        self.thread = None

    # The stream: opened for a session, kept open until the worker leaves.

    def use(self, session_id, registry):
        with self.lock:
            fresh = self.session_id == "" and session_id != ""
            changed = self.session_id != session_id
            self.session_id, self.registry = session_id, registry
        if fresh:
            self.thread = threading.Thread(target=self._keep_open, daemon=True)
            self.thread.start()
        elif changed:
            self.reopen()

    def reopen(self):
        with self.lock:
            if self.call is not None:
                self.call.cancel()

    def _keep_open(self):
        tries = 0
        while not self.leaving:
            tries += 1
            try:
                for response in self._open():
                    tries = 1
                    self._on_response(response)
            except grpc.RpcError as error:
                log.info("the relay broke: %s", error.details())
            if not self.leaving:
                pause(tries)

    def _open(self):
        with self.lock:
            if self.outgoing is not None:
                self.outgoing.put(None)
            self.stream += 1
            self.nonce = ""
            self.numbers = {}
            outgoing = self.outgoing = queue.Queue()
            opening = relay_pb2.RelayOpen(namespace=self.namespace, session_id=self.session_id)
            self._send(open=opening)
            if self.draining:
                self._send(drain=relay_pb2.RelayDrain())
            else:
                free = self.slots - self.taken
                allowance = self.slots * START_MAX
                self._send(credit=relay_pb2.RelayCredit(task_queue=SERVICE, slots=free, bytes=allowance))
            for attempt in self.attempts.values():
                attempt.delivery = None
                if attempt.completion is not None:
                    self._report(attempt)
            self.call = self.relay.Relay(iter(outgoing.get, None))
            return self.call

    def _send(self, **message):
        if self.outgoing is not None:
            self.outgoing.put(relay_pb2.RelayRequest(**message))

    def _on_response(self, response):
        kind = response.WhichOneof("message")
        with self.lock:
            if kind == "starts":
                for relayed in response.starts.starts:
                    self._on_start(relayed)
            elif kind == "stored":
                self._on_stored(response.stored)
            elif kind == "probe":
                first, self.nonce = self.nonce == "", response.probe.nonce
                if first:
                    self.on_first_nonce()

    def _on_start(self, relayed):
        if relayed.task_queue != SERVICE:
            return
        start, delivery = relayed.start, (self.stream, relayed.delivery, relayed.start.ByteSize())
        if not start.run_id or not start.lease:
            self._credit(delivery)
            return
        known = self.attempts.get(start.lease)
        if known is not None:  # 7.1
            known.delivery = delivery
            if known.bound:
                self._ack(known)
            self._credit(delivery)
            return
        done = self.completed.get(start.lease)
        if done is not None:  # 7.2
            self._credit(delivery)
            self._complete_again(done, delivery)
            return
        self.taken += 1
        attempt = Attempt(start, delivery)
        attempt.claiming = relayed.redelivered or start.exclusive
        self.attempts[start.lease] = attempt
        self.pool.submit(self._guarded, self._claim if attempt.claiming else self._run, attempt)

    def _guarded(self, work, attempt):
        try:
            work(attempt)
        except Exception:
            log.exception("an attempt could not be carried on")
            self._let_go(attempt)

    def _claim(self, attempt):
        """Asks for a start that was delivered before (7.3)."""
        start = attempt.start
        names = dict(run_id=start.run_id, step_id=start.step_id, item=start.item, attempt=start.attempt, lease=start.lease)
        until = time.monotonic() + 60
        for tries in range(1, 1000):
            if time.monotonic() > until or self.leaving:
                break
            request = registry_pb2.ClaimAttemptRequest(namespace=self.namespace, session_id=self.session_id, **names)
            try:
                answer = self.registry.ClaimAttempt(request, timeout=5)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed in the meantime
                log.info("a claim is tried again: %s", error)
                pause(tries)
                continue
            if answer.WhichOneof("verdict") == "drop":
                with self.lock:
                    self._ack(attempt)
                self._let_go(attempt)
                return
            with self.lock:
                del self.attempts[start.lease]
                if not answer.start.HasField("input"):
                    answer.start.input.CopyFrom(start.input)
                attempt.start, attempt.claiming = answer.start, False
                self.attempts[attempt.start.lease] = attempt
            self._run(attempt)
            return
        self._let_go(attempt)

    def _run(self, attempt):
        """Runs the handler and reports how it ended (6)."""
        start = attempt.start
        began = time.monotonic()
        timer = self._time_limit(attempt)
        completion = message_pb2.CompleteStep(
            run_id=start.run_id,
            step_id=start.step_id,
            item=start.item,
            attempt=start.attempt,
            lease=start.lease,
            session_id=self.session_id,
        )
        try:
            completion.output.CopyFrom(self.payloads.write(self._handle(attempt)))
        except Stopped:
            completion.cancelled.message = "the handler stopped"
        except Failed as failed:
            completion.failure.CopyFrom(failed.failure)
        except Exception as error:
            log.exception("a handler failed")
            completion.failure.CopyFrom(Failed("HANDLER_ERROR", str(error) or repr(error), True).failure)
        if timer is not None:
            timer.cancel()
        succeeded = completion.WhichOneof("outcome") == "output"
        if attempt.why in ("START_TO_CLOSE_TIMEOUT", "RUN_EXPIRED") and not succeeded:
            retryable = attempt.why == "START_TO_CLOSE_TIMEOUT"
            completion.failure.CopyFrom(Failed(attempt.why, "the attempt's time is over", retryable).failure)
        elif attempt.why == "CANCELLED" and completion.WhichOneof("outcome") == "failure":
            completion.cancelled.message = completion.failure.message
        if completion.WhichOneof("outcome") == "failure" and attempt.checkpoint is not None:
            completion.checkpoint.CopyFrom(attempt.checkpoint)
        completion.execution_ms = int((time.monotonic() - began) * 1000)
        lost = attempt.why == "LEASE_LOST" or (attempt.why == "DRAINING" and not succeeded)
        with self.lock:
            if not lost:
                attempt.completion = completion
                self._report(attempt)
        self._free_slot(attempt, forget=lost)

    def _handle(self, attempt):
        kind, handler = METHODS.get(attempt.start.method, (None, None))
        if handler is None:
            raise Failed("METHOD_UNKNOWN", f"this worker does not implement {attempt.start.method}", True)
        data = self.payloads.read(attempt.start.input)
        try:
            request = kind.FromString(data)
        except DecodeError as error:
            raise Failed("INPUT_INVALID", f"the input can't be decoded: {error}", False) from error
        return handler(request, attempt).SerializeToString()

    def _time_limit(self, attempt):
        own, run = attempt.start.start_to_close_ms, attempt.start.run_remaining_ms
        limits = [(ms, why) for ms, why in ((own, "START_TO_CLOSE_TIMEOUT"), (run, "RUN_EXPIRED")) if ms > 0]
        if not limits:
            return None
        ms, why = min(limits)
        timer = threading.Timer(min(ms / 1000, threading.TIMEOUT_MAX), self.stop_attempt, (attempt, why))
        timer.daemon = True
        timer.start()
        return timer

    def stop_attempt(self, attempt, why):
        with self.lock:
            if attempt.why is None:
                attempt.why = why
            attempt.stop.set()

    # What the coordinator says of leases.

    def bound(self, lease):
        with self.lock:
            attempt = self.attempts.get(lease)
            if attempt is not None:
                attempt.bound = True
                self._ack(attempt)

    def cancel(self, lease, reason):
        with self.lock:
            attempt = self.attempts.get(lease)
            if attempt is None:
                return
            if reason == registry_pb2.CANCEL_REASON_LEASE_LOST:
                self._ack(attempt)
                attempt.why = "LEASE_LOST"
                if attempt.ended:
                    self._forget(attempt)
            self.stop_attempt(attempt, "CANCELLED")

    def beats(self):
        """The attempts to list (4.4)."""
        with self.lock:
            return [self._beat_of(attempt) for attempt in self.attempts.values() if listed(attempt)]

    @staticmethod
    def _beat_of(attempt):
        start = attempt.start
        beat = registry_pb2.AttemptBeat(
            run_id=start.run_id, step_id=start.step_id, item=start.item, attempt=start.attempt, lease=start.lease
        )
        beat.started_at.FromNanoseconds(int(attempt.began * 1e9))
        beat.since_report_ms = int((time.monotonic() - attempt.reported_at) * 1000)
        if attempt.progress is not None:
            beat.progress.CopyFrom(attempt.progress)
            beat.checkpoint.CopyFrom(attempt.checkpoint)
        return beat

    # Reports, acks, credits.

    def _report(self, attempt):
        self.next_number += 1
        self.numbers[self.next_number] = attempt
        batch = message_pb2.CompletionBatch(completions=[attempt.completion])
        report_to = attempt.start.report_to
        self._send(completions=relay_pb2.RelayCompletions(number=self.next_number, report_to=report_to, batch=batch))

    def _on_stored(self, stored):
        attempt = self.numbers.pop(stored.number, None)
        if attempt is None:
            return
        if stored.error:
            log.info("a completion is sent again: %s", stored.error)
            stream = self.stream
            threading.Timer(random.uniform(0.05, 0.2), self._report_again, (attempt, stream)).start()
            return
        self._ack(attempt)
        self._remember(attempt)
        self._forget(attempt)

    def _report_again(self, attempt, stream):
        with self.lock:
            if self.stream == stream:
                self._report(attempt)

    def _remember(self, attempt):
        now = time.monotonic()
        self.completed[attempt.start.lease] = attempt
        attempt.stored_at = now
        while self.completed and next(iter(self.completed.values())).stored_at < now - COMPLETED_KEPT_SECONDS:
            self.completed.popitem(last=False)

    def _complete_again(self, attempt, delivery):
        attempt.delivery = delivery
        self._report(attempt)

    def republish(self):
        with self.lock:
            for attempt in self.completed.values():
                self._report(attempt)

    def _ack(self, attempt):
        if attempt.delivery is not None and attempt.delivery[0] == self.stream:
            self._send(ack=relay_pb2.RelayAck(deliveries=[attempt.delivery[1]]))
            attempt.delivery = None

    def _credit(self, delivery):
        stream, number, size = delivery
        if self.draining:
            return
        if stream == self.stream:
            self._send(credit=relay_pb2.RelayCredit(task_queue=SERVICE, slots=1, bytes=size, deliveries=[number]))
        else:
            # Taken under an earlier stream: this one was told of fewer slots, and of all bytes.
            self._send(credit=relay_pb2.RelayCredit(task_queue=SERVICE, slots=1))

    def _free_slot(self, attempt, forget=False):
        with self.lock:
            attempt.ended = True
            self.taken -= 1
            self._credit(attempt.slot)
            if forget:
                self._forget(attempt)
            self.idle.notify_all()

    def _let_go(self, attempt):
        self._free_slot(attempt, forget=True)

    def _forget(self, attempt):
        self.attempts.pop(attempt.start.lease, None)
        self.idle.notify_all()

    # Leaving (11).

    def drain(self):
        with self.lock:
            self.draining = True
            self._send(drain=relay_pb2.RelayDrain())

    def finish(self):
        """Lets what is in hand end, and half-closes the stream."""
        with self.lock:
            if not self.idle.wait_for(lambda: not self.attempts, GRACE_SECONDS):
                for attempt in list(self.attempts.values()):
                    self.stop_attempt(attempt, "DRAINING")
                self.idle.wait_for(lambda: not self.attempts, 2)
            self.leaving = True
            if self.outgoing is not None:
                self.outgoing.put(None)
        if self.thread is not None:
            self.thread.join(2)


# --- the session (3, 4, 12) ------------------------------------------------------------------------------------------------------


class Session:
    """Keeps the worker registered: one Connect stream after another, with the same session id while the mesh knows it."""

    def __init__(self, address, namespace, slots, descriptors, work):
        self.address = address
        self.namespace = namespace
        self.slots = slots
        self.descriptors = descriptors
        self.work = work
        self.id = ""
        self.number = 0
        self.held = False
        self.leaving = threading.Event()
        self.outgoing = None
        work.on_first_nonce = self.beat

    def run(self):
        """Serves until the worker leaves; raises what no retry mends, of a first registration."""
        tries = 0
        while not self.leaving.is_set():
            tries += 1
            self.held = False
            channel = grpc.insecure_channel(self.address, CHANNEL)
            try:
                self._serve(registry_pb2_grpc.RegistryServiceStub(channel))
            except grpc.RpcError as error:
                log.info("the session broke: %s %s", error.code(), error.details())
                if error.code() == grpc.StatusCode.NOT_FOUND and self.id:
                    self.id = ""
                elif not self.id and error.code() in HOPELESS:
                    raise
            finally:
                channel.close()
            tries = 1 if self.held else tries
            if not self.leaving.is_set():
                pause(tries)

    def _serve(self, registry):
        outgoing = self.outgoing = queue.Queue()
        outgoing.put(registry_pb2.ConnectRequest(register=self._register()))
        call = registry.Connect(iter(outgoing.get, None))
        watchdog = None
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "registered":
                    registered = response.registered
                    self.id = registered.session_id
                    self.held = True
                    self.work.use(self.id, registry)
                    watchdog = Watchdog(registered.beat_interval.ToNanoseconds() / 1e9, self.beat, call.cancel)
                    watchdog.start()
                elif kind == "beat_reply":
                    watchdog.answered()
                    self._on_reply(response.beat_reply)
                    if response.beat_reply.drain:
                        call.cancel()
                        return
        finally:
            self.outgoing = None
            outgoing.put(None)
            if watchdog is not None:
                watchdog.stop()

    def _register(self):
        offer = registry_pb2.QueueOffer(task_queue=SERVICE, methods=list(METHODS), slots=self.slots)
        return registry_pb2.Register(
            namespace=self.namespace,
            session_id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            sdk="conformance-python/1",
            descriptor_set=self.descriptors,
            queues=[offer],
            transports=[registry_pb2.TRANSPORT_KIND_RELAY],
        )

    def beat(self):
        outgoing, work = self.outgoing, self.work
        if outgoing is None or not self.id:
            return
        with work.lock:
            self.number += 1
            free = registry_pb2.FreeSlots(task_queue=SERVICE, free=self.slots - work.taken, slots=self.slots)
            beat = registry_pb2.Beat(
                number=self.number,
                nonce=work.nonce,
                attempts=work.beats(),
                free_slots=[free],
                draining=work.draining,
            )
            outgoing.put(registry_pb2.ConnectRequest(beat=beat))

    def _on_reply(self, reply):
        for lease in reply.bound_leases:
            self.work.bound(lease)
        for cancel in reply.cancels:
            self.work.cancel(cancel.lease, cancel.reason)
        if reply.republish:
            self.work.republish()
        if reply.reopen_transport:
            self.work.reopen()

    def leave(self):
        """Half-closes the stream, which ends the session (11.3)."""
        self.beat()
        self.leaving.set()
        if self.outgoing is not None:
            self.outgoing.put(None)


HOPELESS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}


class Watchdog(threading.Thread):
    """Beats once an interval, and breaks a stream off that does not answer three of them (4)."""

    def __init__(self, interval, beat, give_up):
        super().__init__(daemon=True)
        self.interval, self.beat, self.give_up = interval, beat, give_up
        self.silent = 0
        self.stopped = threading.Event()

    def run(self):
        self.beat()
        while not self.stopped.wait(self.interval):
            self.silent += 1
            if self.silent > 3:
                self.give_up()
                return
            self.beat()

    def answered(self):
        self.silent = 0

    def stop(self):
        self.stopped.set()


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    environment = os.environ
    address = environment["TASKMESH_ADDRESS"]
    namespace = environment.get("TASKMESH_NAMESPACE", "")
    slots = int(environment.get("TASKMESH_SLOTS", "4"))
    with open(environment["CONFORMANCE_DESCRIPTORS"], "rb") as file:
        descriptors = file.read()
    work = Work(address, namespace, slots)
    session = Session(address, namespace, slots, descriptors, work)

    def leave():
        work.drain()
        session.beat()
        work.finish()
        session.leave()

    def on_signal(_number, _frame):
        threading.Thread(target=leave, daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    session.run()


if __name__ == "__main__":
    main()
