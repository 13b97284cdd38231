"""Every command and every line of Python in README and docs.

Each command is parsed as the shell and the command line parse it, so that an option
that was renamed is found. The commands and the Python of README are run, in order, in
one folder; so is the Python of each page, in a folder of its own. What they print is
compared with what is shown. `NOT_RUN` names the commands that are not run, and why.
"""

import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import httpx
import jax
import pytest
import typer
from documents import Block, blocks, inline_commands, parse, shell_commands

import seedjax
import seedjax.cli
from seedjax.convert.families import FAMILIES
from seedjax.sampling.policy import Policy
from seedjax.sandbox.runtimes import runtimes

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
IDS = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LINK = re.compile(r"\]\(((?!https?:)[^)#\s]+)")

# By the words that a command begins with.
NOT_RUN = {
    "seedjax convert": "needs a checkpoint; tests/convert",
    "seedjax models fetch": "is on the network; tests/convert/test_fetching.py",
    "seedjax train": "minutes; tests/train runs the loop",
    "seedjax eval": "the suites' data are downloaded; tests/cli/test_eval.py",
    "seedjax lab reproduce": "minutes; .ci/run runs its smoke budget",
    "scripts/quickstart": "makes an environment; .ci/run does",
    "scripts/test": "is what runs this",
    "scripts/check_accelerator": "takes minutes; tests/test_check_accelerator.py",
}


def begins(command: list[str], table: dict) -> str | None:
    """The entry of a table that a command begins with, if any."""
    line = " ".join(command)
    return next((start for start in table if f"{line} ".startswith(f"{start} ")), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_every_command_is_one_that_there_is(document, tmp_path):
    shell = [block.text for block in blocks(document) if block.language == "bash"]
    # One shell for all blocks: later ones use the functions of earlier ones.
    found = shell_commands("\n".join(shell), tmp_path)
    named = list(inline_commands(document))
    for command in [*found, *named]:
        program = Path(command[0])
        if command[:1] == ["scripts/on_cpu"] and not command[1].startswith("scripts/"):
            command = ["seedjax", *command[1:]]
        elif command[0] in ("scripts/on_cpu", "python", "bash"):
            program = Path(next(word for word in command[1:] if "/" in word))
        if command[0] == "seedjax":
            try:
                parse(command)
            except typer.TyperException as error:
                # A sentence may name a command or an option without what it takes.
                known = type(error).__name__ != "NoSuchOption"
                if command not in named or not known:
                    pytest.fail(f"{' '.join(command)}: {error}")
        elif program.parts[0] == "scripts":
            assert (ROOT / program).exists(), command
            options = [word for word in command if word.startswith("--")]
            text = (ROOT / program).read_text()
            for option in options:
                name = option.partition("=")[0]
                assert program.suffix != ".py" or name in text, (program, option)


LANGUAGES = ("", "bash", "python", "json", "bibtex", "js")


def test_every_block_says_what_it_is():
    """A block without a language is neither run nor parsed: pictures made of
    characters only."""
    for document in DOCUMENTS:
        for block in blocks(document):
            where = f"{document.name}:{block.line}"
            assert block.language or "▶" in block.text, where
            assert block.language in LANGUAGES, where


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader of README works, with the clone's configs."""
    made = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "configs", made / "configs")
    return made


@pytest.fixture
def reader(folder, monkeypatch):
    """Runs a command in this process, in the reader's folder; gives the exit code and
    standard output."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def run(command: list[str]) -> tuple[int, str]:
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        monkeypatch.setattr(sys, "argv", command)
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as exit_:
            seedjax.cli.main()
        return exit_.value.code or 0, out.buffer.getvalue().decode()

    before = jax.config.jax_compilation_cache_dir
    yield run
    jax.config.update("jax_compilation_cache_dir", before)


README = [
    block
    for block in blocks(ROOT / "README.md")
    if block.language in ("bash", "python")
]


@pytest.fixture(scope="module")
def names() -> dict:
    """The names that README's blocks of Python share, top to bottom."""
    return {}


@pytest.mark.parametrize(
    "block", README, ids=[f"{b.language}-line-{b.line}" for b in README]
)
def test_readme(block: Block, folder, reader, names, monkeypatch):
    if block.language == "python":
        monkeypatch.chdir(folder)
        run_python(block, names, "README.md")
        return
    printed = ""
    for command in shell_commands(block.text, folder):
        if begins(command, NOT_RUN):
            continue
        code, text = reader(command)
        assert code == 0, (command, text)
        printed += text
    assert block.shown is None or printed == block.shown


def run_python(block: Block, names: dict, document: str) -> None:
    """Runs a block of Python, and compares what it prints with what is shown."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.text, f"{document}:{block.line}", "exec"), names)
    assert block.shown is None or out.getvalue() == block.shown


def pages_with_python() -> list:
    """The pages of docs with Python; by default those are run that compile little."""
    pages = [
        page
        for page in DOCUMENTS[2:]
        if any(block.language == "python" for block in blocks(page))
    ]
    names = {page.stem for page in pages}
    assert names >= {"policy", "family", "suite", "runtime", "generate", "index"}
    return [
        pytest.param(
            page,
            marks=() if page.stem in ("runtime", "fine-tune") else pytest.mark.slow,
            id=page.stem,
        )
        for page in pages
    ]


SERVER = "127.0.0.1:8000"  # that a page's clients speak to


@pytest.fixture(scope="module")
def server():
    """The address of a server with `mini`."""
    import uvicorn

    from seedjax.cli.serve import listening
    from seedjax.server import ServerConfig, create_app

    app = create_app(seedjax.load("mini"), ServerConfig(name="mini", num_slots=1))
    sock = listening("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    address = "{}:{}".format(*sock.getsockname())
    until = time.monotonic() + 300
    while httpx.get(f"http://{address}/health").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    yield address
    running.should_exit = True
    thread.join()


@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_of_a_page(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seedjax.convert.families.FAMILIES", {**FAMILIES})
    languages = {**runtimes()}
    monkeypatch.setattr("seedjax.sandbox.runtimes.runtimes", lambda: languages)
    names: dict = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            text = block.text
            if SERVER in text:
                text = text.replace(SERVER, request.getfixturevalue("server"))
            run_python(dataclasses.replace(block, text=text), names, page.name)


@pytest.mark.slow
def test_the_notebook_shows_what_it_prints(monkeypatch):
    """On one device, as a reader's: training on eight takes two minutes."""
    monkeypatch.setenv("XLA_FLAGS", "")
    nbclient, nbformat = (
        pytest.importorskip("nbclient"),
        pytest.importorskip("nbformat"),
    )
    stored = nbformat.read(NOTEBOOK, as_version=4)
    run = nbclient.execute(
        nbformat.read(NOTEBOOK, as_version=4), cwd=str(NOTEBOOK.parent), timeout=600
    )
    printed, shown = (
        [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
        for cells in (run.cells, stored.cells)
    )
    # Losses depend on the processor in their last digit; counts must be equal.
    words, numbers = zip(*(NUMBER.subn("#", text) for text in printed), strict=True)
    assert list(words) == [NUMBER.sub("#", text) for text in shown]
    for text, expected in zip(printed, shown, strict=True):
        found = [float(number) for number in NUMBER.findall(text)]
        assert found == pytest.approx(
            list(map(float, NUMBER.findall(expected))), abs=0.05
        )
    assert sum(numbers) >= 20


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("document", DOCUMENTS[:2], ids=IDS[:2])
def test_links_lead_somewhere(document):
    links = LINK.findall(document.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_guide_lists_every_policy():
    guide = (ROOT / "docs" / "guides" / "policies.md").read_text()
    table = guide.partition("## Acceptance policies")[2].partition("## Revisions")[0]
    listed = re.findall(r"`(\w+)\(", table)
    named = [policy for policy in get_args(Policy) if dataclasses.is_dataclass(policy)]
    assert sorted(listed) == sorted(policy.__name__ for policy in named)


def test_a_command_that_does_not_exist_is_found(tmp_path):
    block = 'seedjax generate "x" --treshold 0.9 | cat\nseedjax nothing\n'
    first, second = shell_commands(block, tmp_path)
    assert first == ["seedjax", "generate", "x", "--treshold", "0.9"]
    with pytest.raises(typer.TyperException):
        parse(first)
    with pytest.raises(AssertionError):
        parse(second)
    parse(["seedjax", "generate", "x", "--threshold", "0.9"])
    assert os.listdir(tmp_path) == []
