import json

import jax
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.posttrain.preference import (
    Preference,
    PreferenceConfig,
    learn_preferences,
    log_likelihood,
    pair_batch,
    preference_loss,
    prompt_of,
    read_feedback,
    shuffled,
)
from seedjax.text.prompts import editing, infilling
from seedjax.train.optim import OptimizerConfig

CHAT = [{"role": "user", "content": "Write gcd."}]


def write(path, *lines) -> str:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return str(path)


def test_feedback_becomes_pairs(tmp_path):
    path = write(
        tmp_path / "f.jsonl",
        {"prompt": "a", "completion": "x", "accepted": True},
        {"prompt": "a", "completion": "y", "accepted": False},
        {"prompt": "b", "completion": "only", "accepted": True},
        {"prompt": "a", "completion": "z", "accepted": False},
        {"prompt": "c", "accepted": "good", "rejected": "bad"},
        {"prompt": "a", "suffix": "s", "completion": "h", "accepted": True},
        {"prompt": "a", "suffix": "s", "completion": "i", "accepted": False},
        {"messages": CHAT, "completion": "j", "accepted": True},
        {"messages": CHAT, "completion": "k", "accepted": False},
    )
    assert set(read_feedback(path)) == {
        Preference("a", "x", "y"),
        Preference("a", "x", "z"),
        Preference("c", "good", "bad"),
        Preference("a", "h", "i", "s"),
        Preference("", "j", "k", messages=json.dumps(CHAT)),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', ":1: give `prompt`, a text, or `messages`"),
        ('{"prompt": "", "messages": [], "accepted": true}', "or `messages` of a chat"),
        ('{"messages": 1, "completion": "x", "accepted": true}', "`messages` is no"),
        (
            '{"messages": [], "suffix": "", "completion": "x", "accepted": true}',
            "has suffix and messages",
        ),
        ('{"prompt": "a", "accepted": true}', ":1: give `completion`"),
        ('{"prompt": "a", "accepted": "x", "rejected": "y", "suffix": 1}', "`suffix`"),
        ("{", ":1: not JSON"),
        ('{"prompt": "a", "completion": "x", "accepted": true}', "takes pairs"),
    ],
)
def test_bad_feedback_is_named(tmp_path, line, message):
    path = tmp_path / "f.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_feedback(path)
    with pytest.raises(InputError, match="no file"):
        read_feedback(tmp_path / "nowhere")


def test_every_pair_comes_once_an_epoch():
    config = PreferenceConfig(pairs=4)
    drawn = [n for step in range(5) for n in shuffled(10, config, step)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


PAIRS = [
    Preference("def f(x):\n", "    return x + 1\n", "    return x\n"),
    Preference("def g(xs):\n", "    return len(xs)\n", "    return sum(xs) + 1\n"),
]


def test_prompts_are_those_of_the_server(lab_model):
    """Of a hole, and of an edit."""
    tokenizer = lab_model.tokenizer
    special, encode = tokenizer.special, tokenizer.encode
    hole = prompt_of(Preference("a", "", "", suffix="b"), tokenizer)
    order = tokenizer.infill_order
    assert hole == infilling(encode("a"), encode("b"), special, order)
    edit = prompt_of(Preference("a", "", "", instruction="b"), tokenizer)
    assert edit == editing(encode("b\na"), special)


def test_at_the_start_nothing_is_preferred(lab_model):
    pairs = pair_batch(PAIRS, lab_model.tokenizer, lab_model.config)
    assert pairs[0].tokens.shape == pairs[1].tokens.shape
    config = PreferenceConfig(samples=2)
    params = lab_model.params
    loss, _ = jax.jit(preference_loss, static_argnums=(4, 5))(
        params, params, pairs, jax.random.key(0), lab_model.config, config
    )
    assert loss == pytest.approx(np.log(2.0), rel=1e-5)


@pytest.mark.slow
def test_learning_raises_the_accepted_answers(lab_model_directory, tmp_path):
    feedback = write(tmp_path / "f.jsonl", *(pair._asdict() for pair in PAIRS))
    config = PreferenceConfig(
        init_from=lab_model_directory,
        feedback=feedback,
        num_steps=8,
        pairs=2,
        samples=2,
        beta=0.5,
        log_every=4,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0),
    )
    ended = learn_preferences(config, tmp_path / "out")
    assert ended.finished and ended.step == 8
    before, after = load(lab_model_directory), load(str(tmp_path / "out"))
    sides = jax.device_put(pair_batch(PAIRS, before.tokenizer, before.config))
    margins = []
    for model in (before, after):
        accepted, rejected = (
            log_likelihood(model.params, side, jax.random.key(1), model.config, 8)
            for side in sides
        )
        margins.append(np.asarray(accepted - rejected))
    assert (margins[1] > margins[0]).all()
    with pytest.raises(InputError, match="already holds a run"):
        learn_preferences(config, tmp_path / "out")
