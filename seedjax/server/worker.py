"""The thread that decodes: an `Engine`, and the requests of many clients.

    event loop            submit, cancel             thread
    handlers   ───────────────▶ queue ───────────────▶ Engine.step, again and again
               ◀── texts, completions, errors ───────

JAX blocks while it computes, so that everything of the engine is called from the one
thread, and the event loop is free. A request joins at the next block boundary, and a
cancelled one leaves its slot there.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from seedjax.errors import InputError
from seedjax.inference.engine import Engine
from seedjax.inference.in_flight import Completion
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.trace import TraceStep
from seedjax.server.errors import ApiError
from seedjax.server.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Job:
    """A completion to decode.

    Attributes:
      prompt: token ids.
      max_new_tokens: longest completion.
      temperature: 0 takes the most probable token; None is the recipe's, and so for
        `top_k` and `top_p`.
      logit_bias: what is added to the logits of some ids.
      seed: of the draws.
      stop: strings that end the completion.
      grammar: what the completion has to match, if anything.
      streams: whether its text is handed out block by block.
      shows: whether its denoising steps are handed out.
      one_by_one: whether each step unmasks one token, from the left.
      client: whose it is, for a fair queue.
      max_seconds: of decoding; then it is cut off. None is no limit of its own.
    """

    prompt: list[int]
    max_new_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    streams: bool = True
    shows: bool = False
    one_by_one: bool = False
    client: str = ""
    max_seconds: float | None = None


class Update(NamedTuple):
    """News of a job after a block: its denoising steps, text that will not change, and
    last of all the completion."""

    text: str = ""
    steps: tuple[TraceStep, ...] = ()
    completion: Completion | None = None
    error: ApiError | None = None


@dataclass(eq=False)
class _Ticket:
    """A job on its way.

    Attributes:
      job: the job.
      loop: where its handler runs.
      updates: to the handler.
      cancelled: whether nobody waits for it any more.
      submitted: when it came, by `time.monotonic`.
      started: whether it has had a first text.
      text: new since the last update.
      steps: likewise.
    """

    job: Job
    loop: asyncio.AbstractEventLoop
    updates: "asyncio.Queue[Update]"
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
    started: bool = False
    text: str = ""
    steps: list[TraceStep] = field(default_factory=list)

    def flush(self, completion: Completion | None = None) -> None:
        """Hands what is new to the event loop, if anything is."""
        if self.text or self.steps or completion is not None:
            self.send(Update(self.text, tuple(self.steps), completion))
            self.text = ""
            self.steps.clear()

    def send(self, update: Update) -> None:
        """Hands an update to the event loop, unless that is closed already."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.updates.put_nowait, update)


class Worker:
    """Decodes jobs in a thread of its own."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        metrics: Metrics,
        *,
        max_waiting: int,
        timeout_s: float,
    ):
        """Starts the thread, which makes the engine and compiles its programs.

        Args:
          make_engine: called in the thread.
          metrics: what is counted.
          max_waiting: jobs that wait; more are refused.
          timeout_s: seconds that a job may take, waiting included.
        """
        self._make_engine, self._metrics = make_engine, metrics
        self._max_waiting, self._timeout_s = max_waiting, timeout_s
        self._inbox: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._open = 0  # jobs between submission and end; event loop only
        self._engine: Engine | None = None
        self._tickets: dict[int, _Ticket] = {}
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The engine, once `ready` is set."""
        assert self._engine is not None
        return self._engine

    def close(self) -> None:
        """Ends the thread after the current block; open jobs end with an error. While
        programs are compiled nothing is open, and it does not wait for them."""
        self._inbox.put(None)
        if self.ready.is_set():
            self._thread.join()

    async def run(self, job: Job) -> AsyncGenerator[Update, None]:
        """Texts of a job as they become certain, and last its completion. Leaving the
        iterator early cancels the job.

        Raises:
          ApiError: if the queue is full, the job is refused, fails, or takes too long.
        """
        if self.failure is not None or not self.ready.is_set():
            raise ApiError(503, "the model is not ready", code="not_ready")
        if self._open >= self._max_waiting + self.engine.num_slots:
            self._metrics.refused.inc()
            message = f"{self._open} requests are open; try again in a moment"
            raise ApiError(429, message, code="queue_full")
        loop = asyncio.get_running_loop()
        ticket = _Ticket(job, loop, asyncio.Queue())
        self._open += 1
        self._inbox.put(ticket)
        deadline = loop.time() + self._timeout_s
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        update = await ticket.updates.get()
                except TimeoutError:
                    self._metrics.timeouts.inc()
                    message = (
                        f"not finished within {self._timeout_s:g} s; ask for fewer "
                        "tokens, or start the server with a longer --timeout"
                    )
                    raise ApiError(408, message, code="timeout") from None
                if update.error is not None:
                    raise update.error
                yield update
                if update.completion is not None:
                    return
        finally:
            self._open -= 1
            ticket.cancelled = True  # of a finished one nothing is left to cancel

    def _run(self) -> None:
        try:
            self._engine = self._make_engine()
            self.ready.set()
            while self._accept(self._engine):
                self._drop_cancelled(self._engine)
                if self._engine.num_waiting or self._engine.num_running:
                    self._step(self._engine)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            stopped = ApiError(503, "the server is stopping", code="stopping")
            for ticket in self._tickets.values():
                ticket.send(Update(error=stopped))
            self._tickets.clear()

    def _accept(self, engine: Engine) -> bool:
        """Puts new jobs into the engine, and waits for one if there are none at all.
        False ends the thread."""
        idle = not (engine.num_waiting or engine.num_running)
        while True:
            try:
                ticket = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if ticket is None:
                return False
            idle = False
            if not ticket.cancelled:
                self._submit(engine, ticket)

    def _submit(self, engine: Engine, ticket: _Ticket) -> None:
        job = ticket.job

        def on_text(text: str) -> None:
            self._note_text(ticket)
            ticket.text += text

        try:
            number = engine.submit(
                job.prompt,
                max_new_tokens=job.max_new_tokens,
                temperature=job.temperature,
                top_k=job.top_k,
                top_p=job.top_p,
                logit_bias=job.logit_bias,
                seed=job.seed,
                stop=job.stop,
                grammar=job.grammar,
                on_text=on_text if job.streams else None,
                on_block=ticket.steps.extend if job.shows else None,
                client=job.client,
                max_seconds=job.max_seconds,
            )
        except InputError as error:
            ticket.send(Update(error=ApiError(400, str(error), code="invalid_value")))
            return
        self._tickets[number] = ticket

    def _note_text(self, ticket: _Ticket) -> None:
        """Observes the time to the first text of a job."""
        if not ticket.started:
            ticket.started = True
            waited = time.monotonic() - ticket.submitted
            self._metrics.first_text_seconds.observe(waited)

    def _drop_cancelled(self, engine: Engine) -> None:
        for number, ticket in list(self._tickets.items()):
            if ticket.cancelled:
                engine.cancel(number)
                del self._tickets[number]
                self._metrics.cancelled.inc()

    def _step(self, engine: Engine) -> None:
        """A block for every slot. A failure ends the jobs that were in flight, and the
        others go on."""
        try:
            completions = engine.step()
        except Exception as error:
            self._metrics.failures.inc()
            for number, ticket in list(self._tickets.items()):
                engine.cancel(number)
                fault = ApiError(500, f"decoding failed: {type(error).__name__}")
                ticket.send(Update(error=fault))
                del self._tickets[number]
            return
        self._metrics.waiting.set(engine.num_waiting)
        self._metrics.running.set(engine.num_running)
        self._metrics.programs.set(engine.model.num_programs)
        for completion in completions:
            if completion.number in self._tickets:
                ticket = self._tickets.pop(completion.number)
                if completion.text:
                    self._note_text(ticket)
                self._metrics.finish(completion, time.monotonic() - ticket.submitted)
                ticket.flush(completion)
        for ticket in self._tickets.values():
            ticket.flush()
