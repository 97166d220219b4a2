#!/usr/bin/env python3
"""A worker for Orchestrator in Python: it brings the action word_count.

It needs grpcio and protobuf, and the messages that protoc makes of the API's
description, see README.md. The protocol is told in docs/guide/workers.md.
"""

import argparse
import json
import queue
import signal
import socket
import sys
import threading
import time
import uuid

import grpc

from orchestrator.v1 import workers_pb2 as pb

PROTOCOL = 1
CONNECT = "/orchestrator.v1.Workers/Connect"


class Cancelled(Exception):
    """Nobody wants the result any more."""


class Task:
    """An attempt of a step, as its action sees it."""

    def __init__(self, worker, order):
        self.token = order.token
        self.parameters = json.loads(order.parameters or "{}")
        self.attempt = order.attempt
        self.idempotency_key = order.idempotency_key  # equal over all attempts of the step
        self.cancelled = threading.Event()
        self.result = None  # kept until it is acknowledged
        self._worker = worker
        self._lines = 0

    def log(self, text, stream="stdout"):
        self._lines += 1
        self._worker.say(log=pb.WorkerLog(token=self.token, stream=stream, text=text, n=self._lines))

    def check(self):
        if self.cancelled.is_set():
            raise Cancelled()


def word_count(task):
    """Counts the words of a text."""
    counts = {}
    for word in task.parameters["text"].lower().split():
        task.check()
        counts[word] = counts.get(word, 0) + 1
    task.log("%d different words\n" % len(counts))
    return {"words": sum(counts.values()), "counts": counts, "key": task.idempotency_key}


ACTIONS = {
    "word_count": (
        word_count,
        {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "what to count in"}},
            "required": ["text"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]},
    ),
}


class Worker:
    def __init__(self, args):
        self.args = args
        self.incarnation = uuid.uuid4().hex
        self.lock = threading.Lock()
        self.tasks = {}  # by token, until their results are acknowledged
        self.outbox = None  # a queue while connected
        self.draining = threading.Event()

    def say(self, **message):
        with self.lock:
            if self.outbox is not None:
                self.outbox.put(pb.ConnectRequest(**message))

    def busy(self):
        with self.lock:
            return sum(1 for t in self.tasks.values() if t.result is None)

    def hello(self):
        return pb.WorkerHello(
            protocol=PROTOCOL,
            name=self.args.name,
            incarnation=self.incarnation,
            version="example",
            labels=self.args.labels,
            slots=self.args.slots,
            held=list(self.tasks),
            draining=self.draining.is_set(),
            actions=[
                pb.WorkerAction(
                    name=name, doc=f.__doc__, effect="pure", parameters=json.dumps(params), returns=json.dumps(returns)
                )
                for name, (f, params, returns) in ACTIONS.items()
            ],
        )

    def run(self):
        wait = 0.1
        while not self.finished():
            try:
                self.connect()
                wait = 0.1
            except grpc.RpcError as e:
                if e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED):
                    sys.exit("not taken in: " + e.details())
                print("not connected; trying again:", e.details(), file=sys.stderr, flush=True)
            if not self.finished():
                time.sleep(wait)
                wait = min(2 * wait, 3.0)

    def finished(self):
        """Draining, and nothing is left to report."""
        return self.draining.is_set() and not self.tasks

    def connect(self):
        """One connection, from hello to its end."""
        outbox = queue.Queue()
        outbox.put(pb.ConnectRequest(hello=self.hello()))
        with grpc.insecure_channel(self.args.server) as channel:
            connect = channel.stream_stream(
                CONNECT,
                request_serializer=pb.ConnectRequest.SerializeToString,
                response_deserializer=pb.ConnectResponse.FromString,
            )
            stream = connect(iter(outbox.get, None))
            ended = threading.Event()
            try:
                for message in stream:
                    self.heard(message, outbox, ended, stream)
            except grpc.RpcError as e:
                if not (self.finished() and e.code() == grpc.StatusCode.CANCELLED):
                    raise
            finally:
                ended.set()
                with self.lock:
                    self.outbox = None
                outbox.put(None)

    def heard(self, message, outbox, ended, stream):
        kind = message.WhichOneof("message")
        if kind == "welcome":
            print("connected", flush=True)
            with self.lock:
                self.outbox = outbox
                results = [t.result for t in self.tasks.values() if t.result is not None]
            for result in results:
                self.say(result=result)
            threading.Thread(target=self.beat, args=(message.welcome.heartbeat, ended, stream), daemon=True).start()
        elif kind == "assign":
            self.assign(message.assign)
        elif kind == "cancel":
            task = self.tasks.get(message.cancel.token)
            if task:
                task.cancelled.set()
        elif kind == "acknowledge":
            with self.lock:
                self.tasks.pop(message.acknowledge.token, None)
        elif kind == "drain":
            self.draining.set()

    def beat(self, every, ended, stream):
        """Says that the worker is there, and leaves once it has drained."""
        told = False
        last = 0.0
        while not ended.wait(min(every, 0.1)):
            if self.draining.is_set() and not told:
                told = True
                self.say(drain=pb.WorkerDrain())
            if self.finished():
                stream.cancel()
                return
            if time.monotonic() - last >= every:
                last = time.monotonic()
                self.say(heartbeat=pb.WorkerHeartbeat(busy=self.busy()))

    def assign(self, order):
        if self.draining.is_set() or self.busy() >= self.args.slots or order.action not in ACTIONS:
            self.say(decline=pb.WorkerDecline(token=order.token, reason="no room"))
            return
        task = Task(self, order)
        with self.lock:
            if order.token in self.tasks:
                return
            self.tasks[order.token] = task
        threading.Thread(target=self.carry_out, args=(task, order), daemon=True).start()

    def carry_out(self, task, order):
        result = pb.WorkerResult(token=task.token)
        try:
            result.output = json.dumps(ACTIONS[order.action][0](task))
        except Cancelled:
            result.error.CopyFrom(pb.WorkerFailure(category="cancelled", message="cancelled"))
        except Exception as e:  # whatever an action raises is the step's failure
            result.error.CopyFrom(pb.WorkerFailure(category="failed", message="%s: %s" % (type(e).__name__, e)))
        task.result = result
        self.say(result=result)
        self.say(heartbeat=pb.WorkerHeartbeat(busy=self.busy()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:8080", help="host and port of a server")
    parser.add_argument("--name", default="python-" + socket.gethostname())
    parser.add_argument("--labels", type=lambda s: s.split(","), default=["python"])
    parser.add_argument("--slots", type=int, default=2)
    worker = Worker(parser.parse_args())
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: worker.draining.set())
    worker.run()


if __name__ == "__main__":
    main()
