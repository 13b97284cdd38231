"""The one switch of the kernels in Pallas."""

import pytest

from seedjax.errors import InputError
from seedjax.nn.attention_choice import Pass, choose, explain
from seedjax.nn.kernels import explain_kernels, is_on

DECODING = Pass(queries=32, keys=(8192, 32), cached=True)
TRAINING = Pass(queries=1024, keys=(1024,), cached=False)


@pytest.mark.parametrize(
    ("switch", "on"),
    [
        ("", {"decode", "experts", "splash"}),
        ("off", set()),
        ("experts", {"experts"}),
        ("decode,splash", {"decode", "splash"}),
    ],
)
def test_the_switch(monkeypatch, switch, on):
    monkeypatch.setenv("SEEDJAX_KERNELS", switch)
    assert {name for name in ("decode", "experts", "splash") if is_on(name)} == on
    decode = choose(DECODING, "cuda").backend
    assert decode == ("decode" if "decode" in on else "dense")
    splash = choose(TRAINING, "tpu").backend
    assert splash == ("splash" if "splash" in on else "dense")
    state = explain_kernels("cuda")["experts"]
    assert state.startswith("on" if "experts" in on else "off (SEEDJAX_KERNELS)")


def test_reasons_and_mistakes(monkeypatch):
    monkeypatch.setenv("SEEDJAX_KERNELS", "off")
    shown = explain("cuda")["decoding, block of 32 after 8,192"]
    assert "not decode: SEEDJAX_KERNELS turns it off" in shown
    monkeypatch.setenv("SEEDJAX_KERNELS", "flash")
    with pytest.raises(InputError, match="'flash'; give off, or some of decode"):
        is_on("decode")
