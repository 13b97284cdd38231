"""A random model in a directory, and the command line run in this process."""

import io
import sys

import compiled
import jax
import pytest

import seedjax.cli
import seedjax.inference.loading
from seedjax.checkpoints.model_directory import save_model
from seedjax.config import to_dict
from seedjax.data.records import Corpus
from seedjax.progress import silent
from seedjax.sampling.recipe import SamplerConfig
from seedjax.train.config import match_tokenizer


@pytest.fixture(scope="session")
def model_directory(corpus, tmp_path_factory):
    """A random model with the corpus's tokenizer."""
    from seedjax.nn.presets import preset

    tokenizer = Corpus(corpus).tokenizer()
    shape = {"vocab_size": 512, "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    more = {"num_kv_heads": 2, "head_dim": 16, "mlp_size": 32, "max_positions": 128}
    config = preset("tiny").__class__(**shape, **more, block_size=4, init_scale=0.3)
    config = match_tokenizer(config, tokenizer)
    directory = tmp_path_factory.mktemp("model") / "random"
    save_model(
        directory,
        params=compiled.init(jax.random.key(0), config),
        denoiser=config,
        tokenizer=tokenizer,
        sampler=to_dict(SamplerConfig()),
        provenance={},
        card="# random\n",
    )
    return directory


@pytest.fixture(scope="session")
def loaded_models():
    return {}


@pytest.fixture
def run(monkeypatch, capsys, loaded_models, model_directory):
    """Runs a command in this process: exit code, standard output, standard error.
    Commands share the random model, and what is compiled for it."""
    load = seedjax.inference.loading.load

    def load_once(model="mini", *, report=silent, **options):
        if str(model) != str(model_directory):
            return load(model, report=report, **options)
        key = tuple(sorted(options.items()))
        if key not in loaded_models:
            loaded_models[key] = load(model, report=report, **options)
        return loaded_models[key]

    monkeypatch.setattr(seedjax.inference.loading, "load", load_once)

    def run_command(*arguments, stdin: bytes | None = None):
        monkeypatch.setattr(sys, "argv", ["seedjax", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            seedjax.cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run_command


@pytest.fixture
def generate(run, model_directory):
    def run_generate(*arguments, **keywords):
        return run(
            *("generate", "--model", model_directory, "--no-compile-cache"),
            *("--max-new-tokens", 12, *arguments),
            **keywords,
        )

    return run_generate
