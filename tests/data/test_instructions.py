"""Prompts and responses: which tokens they become, which are supervised, which rows are
left out, and that shards and resumed iterators read what they should."""

import gzip
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_tokenizers import MAKERS

from seedjax.data.conversations import Conversation, read_conversations
from seedjax.data.instructions import InstructionConfig, encode_row, prepare
from seedjax.errors import InputError
from seedjax.text.loading import load_tokenizer

WORDS = st.text(alphabet="ab (=\n1<|é", min_size=1, max_size=12).filter(str.strip)


def pairs(count: int) -> list[dict]:
    return [
        {"prompt": f"Add {n} to x.", "response": f"return x + {n}" + "\n# so" * (n % 5)}
        for n in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Folders of tokenizers with and without a chat template."""
    folders = {}
    for name in ("qwen", "llama3"):
        folders[name] = tmp_path_factory.mktemp(name)
        for file, content in MAKERS[name]().items():
            (folders[name] / file).write_bytes(content)
    return folders


@pytest.fixture
def config(vocabularies, tmp_path) -> InstructionConfig:
    """Forty pairs in rows of 64 and blocks of four, in Qwen's layout."""
    return InstructionConfig(
        path=str(write(tmp_path / "pairs.jsonl", pairs(40))),
        vocabulary=str(vocabularies["qwen"]),
        sequence_length=64,
        batch_size=4,
        block_size=4,
        heldout_fraction=0.25,
        packing_bins=4,
        prefetch=0,
    )


def sequences(batches):
    """Tokens and supervision of every document in some batches."""
    for batch in batches:
        for row in range(len(batch["tokens"])):
            segments = batch["segments"][row]
            for segment in range(1, segments.max(initial=0) + 1):
                here = segments == segment
                yield batch["tokens"][row][here], batch["supervised"][row][here]


def epoch(config, split="train", **options):
    return sequences(config.batches(split, num_epochs=1, **options))


# --- Tokens


@settings(max_examples=30, deadline=None)
@given(
    turns=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3),
    system=st.booleans(),
    name=st.sampled_from(["qwen", "llama3"]),
)
def test_a_conversation_is_the_models_template(vocabularies, turns, system, name):
    """Ids equal the template's up to the last end of a turn; the supervised ones are
    the responses with their ends, and no others."""
    own = load_tokenizer(vocabularies[name])
    messages = [{"role": "system", "content": "Be short."}] * system
    for prompt, response in turns:
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": response})
    config = InstructionConfig(vocabulary=str(vocabularies[name]))
    row = Conversation(1, tuple(messages))
    tokens, supervised = encode_row(row, config, own)
    whole = own.encode_chat(messages, add_generation_prompt=False)
    assert tokens.tolist() == whole[: len(tokens)]
    assert tokens[-1] == own.special.eos and own.decode(whole[len(tokens) :]) in "\n"
    spelled = own.decode(tokens[supervised])
    strip = str.strip if name == "llama3" else str
    assert spelled == "".join(strip(response) for _, response in turns)
    assert (tokens[supervised] == own.special.eos).sum() == len(turns)
    only_last = encode_row(row, replace(config, turns="last"), own)
    assert own.decode(only_last.tokens[only_last.supervised]) == strip(turns[-1][1])


def test_a_template_that_rewrites_earlier_turns_is_refused(vocabularies, tmp_path):
    for file, content in MAKERS["qwen"]().items():
        (tmp_path / file).write_bytes(content)
    values = json.loads((tmp_path / "tokenizer_config.json").read_text())
    values["chat_template"] = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
        "{{ m.content if loop.last or m.role == 'user' else '(left out)' }}"
        "{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    own, config = load_tokenizer(tmp_path), InstructionConfig()
    roles = ("user", "assistant", "user", "assistant")
    row = Conversation(3, tuple({"role": r, "content": f"text {r}"} for r in roles))
    last = encode_row(row, replace(config, turns="last"), own)
    assert own.decode(last.tokens[last.supervised]).strip() == "text assistant"
    assert "(left out)" in own.decode(last.tokens)
    with pytest.raises(InputError, match="up to message 2 otherwise .* set turns=last"):
        encode_row(row, config, own)


def test_plain_rows_are_prompt_and_response(vocabularies):
    own = load_tokenizer(vocabularies["llama3"])
    (message,) = [{"prompt": "def f(x):\n", "response": "    return x\n"}]
    row = Conversation(
        1,
        (
            {"role": "user", "content": message["prompt"]},
            {"role": "assistant", "content": message["response"]},
        ),
    )
    config = InstructionConfig(layout="plain")
    tokens, supervised = encode_row(row, config, own)
    bos, eos = own.special.bos, own.special.eos
    given = [] if bos is None else [bos]
    given += own.encode(message["prompt"])
    answer = [*own.encode(message["response"]), eos]
    assert tokens.tolist() == given + answer
    assert supervised.tolist() == [False] * len(given) + [True] * len(answer)
    long = Conversation(1, (*row.messages, *row.messages))
    with pytest.raises(InputError, match="no plain layout"):
        encode_row(long, config, own)


# --- Batches


def test_rows_keep_their_promises(config):
    """Prompts weigh nothing; documents start at block bounds, are apart, and end in EOS
    up to the end of their last block, all of it supervised."""
    own = config.tokenizer()
    opening = own.encode_chat([{"role": "user", "content": "x"}])[:2]
    for batch in config.batches("train", num_epochs=1):
        starts = (batch["positions"] == 0) & (batch["segments"] > 0)
        assert (np.nonzero(starts)[1] % config.block_size == 0).all()
        assert not batch["supervised"][batch["segments"] == 0].any()
    found = 0
    for tokens, supervised in epoch(config):
        assert len(tokens) % config.block_size == 0
        assert tokens[:2].tolist() == opening
        first = int(np.argmax(supervised))
        given = tokens[:first]
        assert own.decode(given).startswith("user\nAdd ")
        assert own.decode(given).endswith("assistant\n")
        assert supervised[first:].all() and not supervised[:first].any()
        assert own.decode(tokens[first:]).startswith("return x + ")
        text = len(own.encode(own.decode(tokens[first:])))
        fill = tokens[first + text :]
        assert 1 <= len(fill) <= config.block_size and (fill == own.special.eos).all()
        found += 1
    assert found == len(prepare(config).sequences["train"])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_read_disjoint_rows_whose_union_is_the_whole(config, count):
    whole = sorted(tokens.tobytes() for tokens, _ in epoch(config))
    config = replace(config, batch_size=2 * count)
    parts = [
        {tokens.tobytes() for tokens, _ in epoch(config, shard=n, num_shards=count)}
        for n in range(count)
    ]
    assert sorted(itertools.chain(*parts)) == whole
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))


def test_a_prompt_is_on_one_side(config, tmp_path):
    rows = [
        {**row, "response": f"{row['response']} # {k}"}
        for row in pairs(40)
        for k in (1, 2)
    ]
    config = replace(config, path=str(write(tmp_path / "twice.jsonl", rows)))
    own = config.tokenizer()

    def prompts(split):
        return {own.decode(t[~s]) for t, s in epoch(config, split)}

    assert len(prompts("train")) + len(prompts("heldout")) == 40
    assert prompts("train").isdisjoint(prompts("heldout"))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_restored_iterator_goes_on_exactly(config, prefetch):
    config = replace(config, prefetch=prefetch)
    iterator = iter(config.batches())
    for _ in range(7):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = list(itertools.islice(iterator, 10))
    iterator.close()
    restored = iter(config.batches())
    next(restored)
    restored.set_state(state)
    for batch in expected:
        again = next(restored)
        for name in batch:
            np.testing.assert_array_equal(batch[name], again[name])
    restored.close()


def test_what_is_too_long_is_cut_or_left_out(config, tmp_path):
    rows = [
        {"prompt": "short", "response": "y"},
        {"prompt": "long", "response": "word " * 200},
        {"prompt": "long " * 200, "response": "y"},
    ]
    config = replace(config, path=str(write(tmp_path / "long.jsonl", rows)))
    found = prepare(config)
    assert (found.cut, found.dropped, found.rows) == (1, 1, 3)
    cut = max(
        (s for p in found.sequences.values() for s in p), key=lambda s: len(s["tokens"])
    )
    assert len(cut["tokens"]) == config.sequence_length
    assert cut["tokens"][-1] != config.tokenizer().special.eos
    found = prepare(replace(config, too_long="drop"))
    assert (found.cut, found.dropped) == (0, 2)
    assert len(found.response_lengths) == 3


@pytest.mark.parametrize("too_long", ["cut", "drop"])
def test_responses_that_truncation_leaves_empty_are_refused(config, tmp_path, too_long):
    """Where a prompt alone fills the row, nothing would be supervised."""
    rows = [{"prompt": f"{n} " + "x y " * 60, "response": "z"} for n in range(9)]
    path = str(write(tmp_path / "long.jsonl", rows))
    long = replace(config, path=path, too_long=too_long)
    assert prepare(long).dropped == 9
    with pytest.raises(InputError, match="leaves 0 train rows.*data show"):
        long.batches("train")


def test_rows_that_repeat_or_leak_are_left_out(config, tmp_path):
    item = (
        "Check if in given list of numbers, are any two numbers closer to each other "
        "than given threshold."
    )
    rows = [*pairs(12), *pairs(3), {"prompt": item, "response": "return False"}]
    config = replace(config, path=str(write(tmp_path / "leak.jsonl", rows)))
    found = prepare(config)
    assert (found.doubled, found.contaminated) == (3, 1)
    assert str(found).startswith("16 rows: ")
    assert str(found).endswith("held out, 3 repeated, 1 of evaluation sets")
    assert prepare(replace(config, decontaminate=False)).contaminated == 0
    item = {"task_id": "HumanEval/0", "prompt": "p", "response": "r"}
    write(tmp_path / "item.jsonl", [item])
    with pytest.raises(InputError, match="item.jsonl:1: it is an item of the evaluat"):
        read_conversations(tmp_path / "item.jsonl")


# --- Files


def test_kinds_of_files_and_names_of_fields(tmp_path):
    rows = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
    names = {"prompt_field": "question", "response_field": "answer"}
    plain = write(tmp_path / "a.jsonl", rows)
    expected = read_conversations(plain, **names).rows
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_conversations(packed, **names).rows == expected
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_conversations(tmp_path / "a.parquet", **names).rows == expected
    chats = [
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
            ]
        }
    ]
    parquet.write_table(arrow.Table.from_pylist(chats), tmp_path / "b.parquet")
    (row,) = read_conversations(tmp_path / "b.parquet").rows
    assert (row.prompt, row.response) == ("a", "b")


def chat(*messages):
    return json.dumps(
        {"messages": [{"role": role, "content": text} for role, text in messages]}
    )


BAD_LINES = {
    "not json": "not JSON",
    "[1]": "it must be an object with named fields, got [1]",
    '{"prompt": "a"}': "response is None, expected text; its fields are prompt",
    '{"prompt": 1, "response": "b"}': "prompt is 1, expected text",
    '{"prompt": "a", "response": " \\n"}': "response is empty",
    '{"messages": "hi"}': "messages is 'hi', expected a list of objects",
    chat(("user", "a")): "has no response of the assistant",
    chat((None, "a")): "message 1 has the role None",
    chat(("user", "a"), ("assistant", [1])): "message 2 has the content [1]",
    chat(("user", "a"), ("assistant", "")): "the assistant's last response is empty",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_malformed_rows_are_named_or_passed_over(tmp_path, line):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n\n' + line + "\n")
    with pytest.raises(InputError) as info:
        read_conversations(file)
    assert "bad.jsonl:3: " in str(info.value) and "\n" not in str(info.value)
    assert BAD_LINES[line] in str(info.value) and "skip_invalid" in str(info.value)
    found = read_conversations(file, skip_invalid=True)
    assert len(found.rows) == 1 and found.invalid[0][0] == 3
    file.write_text(line + "\n")
    with pytest.raises(InputError, match="holds no instructions"):
        read_conversations(file, skip_invalid=True)


def test_other_files_are_refused(tmp_path, config):
    with pytest.raises(InputError, match="no instructions at"):
        read_conversations(tmp_path / "nowhere.jsonl")
    (tmp_path / "a.csv").write_text("prompt,response\n")
    with pytest.raises(InputError, match="of no known kind"):
        read_conversations(tmp_path / "a.csv")
    with pytest.raises(InputError, match="vocabulary is empty; start from a model"):
        replace(config, vocabulary="").batches()
    few = replace(config, path=str(write(tmp_path / "few.jsonl", pairs(2))))
    with pytest.raises(InputError, match="leaves 0 heldout rows"):
        replace(few, heldout_fraction=0.0).batches()
    with pytest.raises(InputError, match="layout=plain"):
        (tmp_path / "seed").mkdir()
        for file, content in MAKERS["seed_coder"]().items():
            (tmp_path / "seed" / file).write_bytes(content)
        prepare(replace(config, vocabulary=str(tmp_path / "seed")))
