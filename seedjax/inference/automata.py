"""The automata of grammars and stop strings, made once each."""

from typing import Any

import jax
import numpy as np

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.inference.recent import Recent
from seedjax.sampling.grammar.build import Grammar, build_automaton
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stop_strings import stop_automaton
from seedjax.text.tokenizer import Tokenizer


class Automata:
    """The automata of one model, on its device."""

    def __init__(
        self, config: DenoiserConfig, tokenizer: Tokenizer, limit: int | None = None
    ):
        """Keeps the `limit` automata that were used last; None keeps all."""
        self._config, self._tokenizer = config, tokenizer
        self._made: Recent[Any, Automaton] = Recent(limit)

    def of_grammar(self, grammar: Grammar, sampler: SamplerConfig) -> Automaton:
        """The automaton of a grammar over what a recipe may draw.

        Raises:
          InputError: if no completion of the grammar is as short as the recipe's
            `max_new_tokens`.
        """
        banned = sampler.banned_ids(self._config)
        if (grammar, banned) not in self._made:
            pieces = self._pieces()
            for token in banned:
                pieces[token] = b""
            made = build_automaton(
                grammar, pieces, eos_token_ids=self._config.eos_token_ids
            )
            self._made[grammar, banned] = Automaton(*jax.device_put(tuple(made)))
        automaton = self._made[grammar, banned]
        shortest = int(np.asarray(automaton.distance)[0])  # compiles nothing
        if shortest > sampler.max_new_tokens:
            raise InputError(
                f"the shortest completion of the grammar has {shortest} tokens, and "
                f"max_new_tokens is {sampler.max_new_tokens}; give {shortest} or more"
            )
        return automaton

    def of_stops(self, strings: tuple[str, ...]) -> Automaton:
        """The automaton of stop strings."""
        if strings not in self._made:
            made = stop_automaton(strings, self._pieces())
            self._made[strings] = Automaton(*jax.device_put(tuple(made)))
        return self._made[strings]

    def _pieces(self) -> list[bytes]:
        """The bytes of each id that the model has a logit of."""
        silent = self._config.vocab_size - self._tokenizer.vocab_size
        return [*self._tokenizer.pieces, *[b""] * silent]
