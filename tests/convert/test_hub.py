import fnmatch
import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from seedjax.convert.hub import resolve_checkpoint
from seedjax.errors import InputError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs extra convert")

NAME = "ByteDance-Seed/Stable-DiffCoder-8B-Instruct"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one repository; `hub.files` are in it, `hub.calls` were made."""

    class Hub:
        files: list[str] = []
        calls: list[dict] = []

        def download(self, repo_id, *, revision, allow_patterns, ignore_patterns):
            self.calls.append({"repo_id": repo_id, "revision": revision})
            for name in self.files:
                wanted = any(fnmatch.fnmatch(name, p) for p in allow_patterns)
                if wanted and not any(
                    fnmatch.fnmatch(name, p) for p in ignore_patterns
                ):
                    (tmp_path / "cache" / name).parent.mkdir(exist_ok=True)
                    (tmp_path / "cache" / name).touch()
            return str(tmp_path / "cache")

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    return hub


def names(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*")}


def failing(monkeypatch, error: Exception) -> str:
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError) as info:
        resolve_checkpoint(NAME)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_what_is_here_is_returned(tmp_path, hub):
    file = tmp_path / "model.gguf"
    file.touch()
    assert resolve_checkpoint(tmp_path) == tmp_path
    assert resolve_checkpoint(str(file)) == file
    assert hub.calls == []
    with pytest.raises(InputError, match="revision 'v2' cannot be chosen"):
        resolve_checkpoint(tmp_path, "v2")


def test_a_model_of_the_table_goes_by_its_name(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="run `seedjax models fetch smollm2` first"):
        resolve_checkpoint("smollm2")
    folder = tmp_path / "models" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_checkpoint("smollm2") == folder and hub.calls == []


def test_a_directory_that_looks_like_an_id(tmp_path, hub, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("org/name") == Path("org/name")
    assert hub.calls == []


def test_weights_configuration_and_tokenizer_are_fetched(hub):
    wanted = {
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "vocab.txt",
    }
    hub.files = [
        *wanted,
        "modeling_llama.py",
        "pytorch_model.bin",
        "training_args.bin",
        "consolidated.safetensors",
        "model.gguf",
        "README.md",
        "original/model.safetensors",
        "onnx/config.json",
    ]
    assert names(resolve_checkpoint(NAME, "v1")) == wanted
    assert hub.calls == [{"repo_id": NAME, "revision": "v1"}]


def test_pickles_only_where_there_are_no_safetensors(hub):
    hub.files = ["config.json", "pytorch_model.bin", "training_args.bin"]
    assert names(resolve_checkpoint(NAME)) == {"config.json", "pytorch_model.bin"}


def test_no_weights_that_are_fetched(hub):
    hub.files = ["config.json", "model-Q8_0.gguf"]
    with pytest.raises(InputError, match="neither safetensors nor pytorch_model.bin"):
        resolve_checkpoint(NAME)


@pytest.mark.parametrize("name", ["name", "./org/name", "/org/name", "a/b/c", "org/.."])
def test_what_is_no_id(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "org/..":
        assert not Path(name).exists()
    with pytest.raises(InputError, match="nor is it an id on the Hub"):
        resolve_checkpoint(name)
    assert hub.calls == []


def test_what_to_do_without_a_network(monkeypatch):
    message = failing(monkeypatch, ConnectionError("no route\nto host"))
    assert "ConnectionError: no route)" in message
    for part in (
        "config.json",
        "*.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        f"https://huggingface.co/{NAME}/tree/main",
        "give that directory (./Stable-DiffCoder-8B-Instruct)",
    ):
        assert part in message


def test_causes_have_names(monkeypatch):
    from huggingface_hub import errors

    for kind, cause in {
        errors.GatedRepoError: "its owner grants access",
        errors.RepositoryNotFoundError: "there is no such model",
        errors.RevisionNotFoundError: "there is no such revision",
    }.items():
        # Made without the HTTP response that its own constructor wants.
        assert cause in failing(monkeypatch, kind.__new__(kind, "text"))
    lost = errors.LocalEntryNotFoundError("text")
    assert "the Hub cannot be reached" in failing(monkeypatch, lost)


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        InputError, match=r"seedjax\[convert\].*or download config.json"
    ):
        resolve_checkpoint(NAME)


@pytest.mark.slow
def test_the_client_itself_offline(tmp_path):
    """The real client: nothing cached is refused, a cached snapshot is found."""
    program = (
        "import sys; from seedjax.convert.hub import resolve_checkpoint as r\n"
        "try: print(r(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, NAME],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    message = run()
    assert "HF_HUB_OFFLINE is set, and the cache lacks it" in message
    assert f"https://huggingface.co/{NAME}/tree/main" in message

    repository = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").touch()
    assert run() == str(snapshot)
