"""Views of a cache: the narrowest that holds a request, and one for each request."""

import pytest

from seedjax.inference.views import Views, ladder


@pytest.mark.parametrize("capacity", [32, 2048])
def test_every_request_that_a_slot_holds_has_a_view(capacity):
    size, most_tokens, most_new = 8, capacity - 18, 12
    views = Views(ladder(capacity), size, 24, most_tokens, most_new)
    for tokens in range(1, most_tokens + 1):
        for budget in range(1, most_new + 1):
            view = views.of(tokens, budget)
            # The prompt and the completion, in whole blocks.
            last = -(-(tokens + budget) // size) * size
            assert view in views.columns and view >= min(last, capacity)


def test_few_views_and_a_request_for_each():
    views = Views(ladder(2048), 8, 24, 2000, 12)
    assert views.columns == (128, 512, 2048)
    found = [views.of(tokens, budget) for tokens, budget in views.sizes()]
    assert found == list(views.columns)
