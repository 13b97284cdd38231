"""The decoding thread: limits, cancelled jobs, and neighbours that change nothing."""

import asyncio
import random

import pytest

from seedjax.inference.engine import Engine
from seedjax.server.errors import ApiError
from seedjax.server.metrics import Metrics
from seedjax.server.worker import Job, Worker


@pytest.fixture
def worker(chatting, request):
    limits = {"max_waiting": 1, "timeout_s": 60.0} | getattr(request, "param", {})
    made = Worker(lambda: Engine(chatting, num_slots=2), Metrics(), **limits)
    assert made.ready.wait(60)
    yield made
    made.close()


def job(text: str, chatting, **more) -> Job:
    return Job(prompt=chatting.prompt_ids(text), max_new_tokens=16, **more)


async def text_of(worker, job) -> str:
    return "".join([update.text async for update in worker.run(job)])


def test_neighbours_change_nothing(chatting, worker):
    """Neither which, nor how many, nor their temperature."""
    alone = chatting.generate("def f", temperature=0.0).texts[0]
    draws = random.Random(3)

    async def work() -> list[str]:
        found = []
        for _ in range(2):
            neighbours = [
                job("x = 1\n" * draws.randint(1, 4), chatting, temperature=t, seed=k)
                for k, t in enumerate(draws.choices([0.0, 0.9], k=draws.randint(1, 2)))
            ]
            tasks = [asyncio.create_task(text_of(worker, each)) for each in neighbours]
            await asyncio.sleep(0)
            found.append(await text_of(worker, job("def f", chatting)))
            await asyncio.gather(*tasks)
        return found

    assert set(asyncio.run(work())) == {alone}


def test_a_full_queue_and_a_client_that_leaves(chatting, worker):
    async def work() -> None:
        jobs = [job(text, chatting) for text in ("a", "b", "c", "d")]
        running = [worker.run(each) for each in jobs[:3]]
        first = [asyncio.ensure_future(anext(each)) for each in running]
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="3 requests are open") as refused:
            await text_of(worker, jobs[3])
        assert refused.value.status == 429
        await asyncio.gather(*first)
        for each in running:  # leaves early
            await each.aclose()
        assert await text_of(worker, jobs[3])

    asyncio.run(work())
    assert worker.engine.num_running == worker.engine.num_waiting == 0


@pytest.mark.parametrize("worker", [{"timeout_s": 1e-4}], indirect=True)
def test_a_request_takes_only_so_long(chatting, worker):
    with pytest.raises(ApiError, match="not finished within") as error:
        asyncio.run(text_of(worker, job("x", chatting)))
    assert error.value.status == 408


def test_what_the_engine_refuses_and_a_failure(chatting, worker, monkeypatch):
    with pytest.raises(ApiError, match="the prompt is empty"):
        asyncio.run(text_of(worker, Job(prompt=[], max_new_tokens=4)))

    def fail() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(worker.engine, "step", fail)
    with pytest.raises(ApiError, match="decoding failed: RuntimeError"):
        asyncio.run(text_of(worker, job("x", chatting)))
    monkeypatch.undo()
    assert asyncio.run(text_of(worker, job("x", chatting)))


def test_closing_ends_open_requests(chatting, worker):
    async def work() -> None:
        running = worker.run(job("x", chatting))
        waiting = asyncio.ensure_future(anext(running))
        await asyncio.sleep(0)
        worker.close()
        with pytest.raises(ApiError, match="stopping|not ready"):
            await waiting
            async for _ in running:
                pass

    asyncio.run(work())
    worker.close = lambda: None
