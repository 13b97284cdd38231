"""The sampler in PyTorch, for `seedjax bench --against torch`: the same forward passes
and decodes with the same weights, and `transformers` where it has such a model."""

from seedjax.bench.source import Source
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line
from torch_side.decodes import TorchSide
from torch_side.hugging_face import transformers_subject


class Side:
    """Programs in PyTorch and `transformers`; see `seedjax.bench.comparison`."""

    def __init__(self, source: Source, num_columns: int):
        self._source, self._torch = source, TorchSide(source, num_columns)

    def subject(self, line: Line) -> Subject:
        """A line's program."""
        if line.library == "transformers":
            return transformers_subject(self._source, line)
        return self._torch.subject(line)
