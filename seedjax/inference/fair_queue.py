"""A queue of requests in which no client stands before the others."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from seedjax.inference.in_flight import Request


class FairQueue:
    """Requests that wait, in turn by client: the next one is of the client with the
    fewest in flight, and among those of the one that has waited longest."""

    def __init__(self) -> None:
        self._by_client: dict[str, deque[Request]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_client.values()))

    def __iter__(self) -> Iterator[Request]:
        for waiting in self._by_client.values():
            yield from waiting

    def put(self, request: Request) -> None:
        """Adds a request after those of its client."""
        self._by_client.setdefault(request.client, deque()).append(request)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Adds requests that were in flight, before the others of their clients."""
        for request in sorted(requests, key=lambda each: -each.number):
            self._by_client.setdefault(request.client, deque()).appendleft(request)

    def peek(self, in_flight: Iterable[Request]) -> Request:
        """The next request, beside those in flight; it stays in the queue."""
        running = Counter(request.client for request in in_flight)
        first = (waiting[0] for waiting in self._by_client.values())
        return min(first, key=lambda each: (running[each.client], each.number))

    def remove(self, request: Request) -> None:
        """Takes a request out."""
        waiting = self._by_client[request.client]
        waiting.remove(request)
        if not waiting:
            del self._by_client[request.client]
