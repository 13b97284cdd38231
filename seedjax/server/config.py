"""The recipe of a server."""

from dataclasses import dataclass

from seedjax.config import require

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Limits of a server, and what it lets clients do.

    Attributes:
      name: what clients call the model.
      num_slots: requests in flight at once.
      max_new_tokens: longest completion of any request.
      max_prompt_tokens: longest prompt; None is what the model holds beside that.
      max_waiting: requests in the queue; more are refused with status 429.
      timeout_s: seconds from the arrival of a request to its end.
      max_body_bytes: of a request.
      requests_per_minute: of a client, by its key or else its address; None for no
        limit. As many may come at once.
      key_digests: SHA-256 of the API keys, in hexadecimal; empty serves everybody.
      hosts: names under which it may be called (`Host`), whatever the port; None is
        those of this machine where no key is needed, and any where one is.
      ignored: parameters that are dropped, with a warning in the response, instead of
        refused.
      feedback: SQLite file for accepted and rejected completions; None stores none.
      page: whether there is a page to watch the denoising on, and the policy
        `one_by_one`, which it compares with.
    """

    name: str
    num_slots: int = 8
    max_new_tokens: int = 256
    max_prompt_tokens: int | None = None
    max_waiting: int = 128
    timeout_s: float = 120.0
    max_body_bytes: int = 2**21
    requests_per_minute: int | None = None
    key_digests: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None
    ignored: frozenset[str] = frozenset()
    feedback: str | None = None
    page: bool = False

    def __post_init__(self):
        for name in ("num_slots", "max_new_tokens", "max_waiting", "max_body_bytes"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        rate = self.requests_per_minute
        require(rate is None or rate >= 1, self, "requests_per_minute", "at least 1")
        require(self.timeout_s > 0, self, "timeout_s", "above 0")

    @property
    def served_hosts(self) -> frozenset[str] | None:
        """The names under which it may be called; None is any."""
        if self.hosts is not None or self.key_digests:
            return self.hosts
        return LOCAL_HOSTS
