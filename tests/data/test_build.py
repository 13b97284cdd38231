"""Building: deterministic, restartable, clean of duplicates and of leaks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seedjax.config import to_dict
from seedjax.data import build
from seedjax.data.build import BuildConfig, build_corpus
from seedjax.data.records import Corpus, ShardWriter
from seedjax.data.sources import DirectorySource, JsonLinesSource
from seedjax.data.units import UnitConfig
from seedjax.errors import InputError
from seedjax.text.loading import load_tokenizer

CONFIG = BuildConfig(vocab_size=600, heldout_fraction=0.1, shard_bytes=200_000)

FIRST = """def pick(values, limit):
    total = 0
    for index, value in enumerate(values):
        if value > limit and index % 2 == 0:
            total += value * limit
    print("the sum of large values at even places is", total)
    return total
"""
SECOND = """def visit(tree, depth=0):
    if depth > 10:
        raise RecursionError("this tree is far too deep for us to walk")
    for child in tree.children:
        yield from visit(child, depth + 1)
    yield tree, depth
"""
# HumanEval/53 and its neighbours are too short to tell; this is HumanEval/1 (MIT).
LEAK = """def separate_paren_groups(paren_string):
    result = []
    current_string = []
    current_depth = 0

    for c in paren_string:
        if c == '(':
            current_depth += 1
            current_string.append(c)
        elif c == ')':
            current_depth -= 1
            current_string.append(c)
            if current_depth == 0:
                result.append(''.join(current_string))
                current_string.clear()
    return result
"""


def sources_of(folders: list[Path]) -> list[DirectorySource]:
    return [DirectorySource(folder) for folder in folders]


def contents(directory: Path) -> dict[str, bytes]:
    """All files of a corpus but the note of when they were compared."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".verified.json"
    }


def write_files(folder: Path, **texts: str) -> DirectorySource:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return DirectorySource(folder)


def test_the_same_build_gives_the_same_bytes(
    source_folders, contamination, corpus, tmp_path
):
    build_corpus(
        sources_of(source_folders), tmp_path, CONFIG, contamination=contamination
    )
    assert contents(tmp_path) == contents(corpus)


def test_a_finished_build_is_not_repeated(source_folders, contamination, corpus):
    before = contents(corpus)
    manifest = build_corpus(
        sources_of(source_folders), corpus, CONFIG, contamination=contamination
    )
    assert manifest == Corpus(corpus).manifest and contents(corpus) == before
    with pytest.raises(InputError, match="other sources or settings"):
        build_corpus(
            sources_of(source_folders),
            corpus,
            replace(CONFIG, seed=1),
            contamination=contamination,
        )


def test_a_build_killed_while_reading_goes_on(
    source_folders, contamination, corpus, tmp_path, monkeypatch
):
    calls = []
    write_stage = build.write_stage

    def dies_at_the_third(source, path, *rest):
        calls.append(source.name)
        if len(calls) == 3:
            path.with_suffix(".partial").write_bytes(b"half of")
            raise KeyboardInterrupt
        write_stage(source, path, *rest)

    arguments = (sources_of(source_folders), tmp_path, CONFIG)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "write_stage", dies_at_the_third)
        build_corpus(*arguments, contamination=contamination)
    with pytest.raises(InputError, match="no corpus"):
        Corpus(tmp_path)
    stages = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*.stage")}
    assert len(stages) == 2

    kept = {}
    choose = build.choose

    def notes_stages(paths, *rest):
        kept.update({p.name: p.stat().st_mtime_ns for p in paths})
        return choose(paths, *rest)

    monkeypatch.setattr(build, "choose", notes_stages)
    build_corpus(*arguments, contamination=contamination)
    assert stages.items() <= kept.items(), "a finished source was read again"
    assert contents(tmp_path) == contents(corpus)


def test_a_build_killed_while_writing_goes_on(
    source_folders, contamination, corpus, tmp_path, monkeypatch
):
    write = ShardWriter.write
    count = 0

    def dies_late(self, document):
        nonlocal count
        count += 1
        if count == 500:
            raise KeyboardInterrupt
        write(self, document)

    arguments = (sources_of(source_folders), tmp_path, CONFIG)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "write", dies_late)
        build_corpus(*arguments, contamination=contamination)
    (tmp_path / "train-00099.arrayrecord").write_bytes(b"of an older attempt")
    build_corpus(*arguments, contamination=contamination)
    assert contents(tmp_path) == contents(corpus)


@pytest.mark.slow
def test_workers_change_nothing(source_folders, contamination, corpus, tmp_path):
    build_corpus(
        sources_of(source_folders),
        tmp_path,
        CONFIG,
        contamination=contamination,
        workers=2,
    )
    assert contents(tmp_path) == contents(corpus)


def test_held_out_files_are_not_trained_on(corpus):
    opened = Corpus(corpus)
    train = {(d.package, d.path) for d in opened.documents("train")}
    heldout = {(d.package, d.path) for d in opened.documents("heldout")}
    assert train and heldout and not train & heldout
    assert 0.02 < len(heldout) / len(train | heldout) < 0.3
    texts = {"".join(d.text.split()) for d in opened.documents("train")}
    assert not texts & {"".join(d.text.split()) for d in opened.documents("heldout")}


def test_held_out_text_is_capped(source_folders, contamination, tmp_path):
    config = replace(CONFIG, heldout_fraction=0.9, heldout_max_bytes=20_000)
    manifest = build_corpus(
        sources_of(source_folders), tmp_path, config, contamination=contamination
    )
    assert 20_000 <= manifest.heldout.bytes < 150_000 < manifest.train.bytes
    opened = Corpus(tmp_path)
    train = {(d.package, d.path) for d in opened.documents("train")}
    assert not train & {(d.package, d.path) for d in opened.documents("heldout")}


def test_every_reason_is_counted(contamination, tmp_path):
    long = FIRST.replace("total", "a_longer_name_of_the_total_sum_of_values")
    source = write_files(
        tmp_path / "mine",
        a=FIRST,
        b=FIRST.replace("    ", "\t"),
        c=FIRST.replace("return total", "return total + 0"),
        d=LEAK,
        e=SECOND + "\n\ndef short():\n    pass\n",
        f="def broken(:\n    pass\n\n\nprint('not code at all')\n",
        g="# automatically generated\n" + long,
        test_h=long,
    )
    config = replace(CONFIG, vocab_size=340)
    manifest = build_corpus(
        [source], tmp_path / "out", config, contamination=contamination
    )
    assert dict(manifest.rejected) == {
        "evaluation_item": 1,
        "exact_duplicate": 1,
        "generated": 1,
        "near_duplicate": 1,
        "short_function": 1,
        "syntax": 1,
        "test": 1,
    }
    (entry,) = manifest.sources
    assert (entry.package, entry.files, entry.documents) == ("mine", 8, 2)
    opened = Corpus(tmp_path / "out")
    texts = [d.text for s in ("train", "heldout") for d in opened.documents(s)]
    assert sorted(texts) == sorted([FIRST, SECOND])


def test_a_small_corpus_holds_one_file_out(contamination, tmp_path):
    source = write_files(tmp_path / "mine", a=FIRST, b=SECOND)
    config = replace(CONFIG, vocab_size=340, heldout_fraction=1e-9)
    manifest = build_corpus(
        [source], tmp_path / "out", config, contamination=contamination
    )
    assert (manifest.train.documents, manifest.heldout.documents) == (1, 1)
    none = build_corpus(
        [source],
        tmp_path / "none",
        replace(config, heldout_fraction=0.0),
        contamination=contamination,
    )
    assert (none.train.documents, none.heldout.documents) == (2, 0)


def test_whole_files_as_documents(contamination, tmp_path):
    text = f"import os\n\n\n{FIRST}\n\n{SECOND}"
    source = write_files(tmp_path / "mine", a=text)
    config = replace(CONFIG, vocab_size=340, units=UnitConfig(unit="file"))
    build_corpus([source], tmp_path / "out", config, contamination=contamination)
    opened = Corpus(tmp_path / "out")
    assert [d.text for d in opened.documents("train")] == [text]
    assert json.loads(opened.manifest.settings) == to_dict(config)


def test_a_given_tokenizer_is_used(contamination, corpus, tmp_path):
    source = write_files(tmp_path / "mine", a=FIRST, b=SECOND)
    given = load_tokenizer(corpus / "tokenizer")
    manifest = build_corpus(
        [source],
        tmp_path / "out",
        CONFIG,
        contamination=contamination,
        tokenizer=given,
    )
    assert manifest.tokenizer == given.fingerprint
    assert Corpus(tmp_path / "out").tokenizer().fingerprint == given.fingerprint


def test_names_that_are_no_utf8_do_no_harm(contamination, tmp_path):
    path = tmp_path / "code.jsonl"
    record = {"text": FIRST, "path": "a\udcff.py", "package": "\ud800"}
    path.write_text(json.dumps(record) + "\n" + json.dumps({"text": SECOND}) + "\n")
    config = replace(CONFIG, vocab_size=340, heldout_fraction=0.0)
    build_corpus(
        [JsonLinesSource(path)], tmp_path / "out", config, contamination=contamination
    )
    documents = list(Corpus(tmp_path / "out").documents("train"))
    assert [d.path for d in documents] == ["a\\udcff.py", "00000002.py"]


def test_nothing_left_is_an_input_error(contamination, tmp_path):
    source = write_files(tmp_path / "mine", a="x = 1\n", test_b=FIRST)
    with pytest.raises(InputError, match="1 test.*give other sources"):
        build_corpus([source], tmp_path / "out", CONFIG, contamination=contamination)
    with pytest.raises(InputError, match="nothing was found"):
        build_corpus([], tmp_path / "out", CONFIG, contamination=contamination)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("near_duplicate_threshold", 0.0),
        ("near_duplicate_threshold", 1.5),
        ("heldout_fraction", 1.0),
        ("vocab_size", 0),
        ("shard_bytes", 0),
    ],
)
def test_impossible_settings_are_input_errors(field, value):
    with pytest.raises(InputError, match=field):
        BuildConfig(**{field: value})
