"""Whole files of every kind that seedjax reads, in small, and their readers."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import safe_open

from tests.hostile_files import Format, outcome_of

# What is read


def read_checkpoint(folder: Path) -> None:
    from seedjax.convert.checkpoint import open_checkpoint

    found = [*folder.glob("*.gguf"), *folder.glob("*.bin"), folder]
    with open_checkpoint(found[0]) as checkpoint:
        assert checkpoint.tokenizer.vocab_size
        list(checkpoint.tensors.values())


def read_model(folder: Path) -> None:
    from seedjax.checkpoints.model_directory import read_model_directory
    from seedjax.config import from_dict
    from seedjax.nn.denoiser import abstract_params
    from seedjax.sampling.recipe import SamplerConfig

    directory = read_model_directory(folder)
    stored = dataclasses.replace(directory.denoiser, layer_loop="unroll")
    directory.load_params(abstract_params(stored))
    from_dict(SamplerConfig, directory.sampler, f"sampler of {folder}")


def read_tokenizer_folder(folder: Path) -> None:
    from seedjax.text.loading import load_tokenizer

    tokenizer = load_tokenizer(folder)
    tokenizer.decode(tokenizer.encode("ab"))


def read_run(folder: Path) -> None:
    from seedjax.train.config import RunConfig
    from seedjax.train.directory import resumed_recipe
    from seedjax.train.fit import tokens_before
    from seedjax.train.metrics import JsonlWriter
    from seedjax.train.plot import tokens_of_start, unigram_floor

    tokens_before(folder, 3)
    JsonlWriter(folder / "metrics.jsonl", resume_step=2).close()
    tokens_of_start(folder)
    unigram_floor(folder)
    resumed_recipe(folder, RunConfig)


def read_evaluation(folder: Path) -> None:
    from seedjax.evaluate.folder import all_completions
    from seedjax.evaluate.folder import read_run as read

    read(folder)
    all_completions(folder)


def read_corpus(folder: Path) -> None:
    from seedjax.data.records import Corpus

    corpus = Corpus(folder)
    corpus.tokenizer()
    for split in ("train", "heldout"):
        corpus.lengths(split)
        list(corpus.documents(split))
        records = corpus.records(split)
        [records[i] for i in range(min(len(records), 9))]


def read_trajectories(folder: Path) -> None:
    from seedjax.data.trajectories import Trajectories

    found = Trajectories(folder)
    list(found)
    found.tokenizer()


def read_record(folder: Path) -> None:
    from seedjax.data.records import unpack_document
    from seedjax.data.trajectories import unpack_trajectory

    unpack_document((folder / "document").read_bytes())
    unpack_trajectory((folder / "trajectory").read_bytes())


def read_lines(folder: Path) -> None:
    from seedjax.data.sources import open_source
    from seedjax.posttrain.preference import read_feedback
    from seedjax.tasks.lab.tasks import read_tasks

    read_tasks(folder / "tasks.jsonl")
    read_feedback(folder / "feedback.jsonl")
    for source in open_source(folder / "source.jsonl", field="text"):
        list(source.files())


def read_adapter(folder: Path) -> None:
    from seedjax.checkpoints.adapters import load_adapter
    from seedjax.checkpoints.model_directory import read_model_directory

    base = folder / "base"
    load_adapter(folder / "adapter", read_model_directory(base))


def read_schema(folder: Path) -> None:
    from seedjax.files.text import read_text
    from seedjax.sampling.grammar.build import JsonSchema

    JsonSchema(schema=read_text(folder / "schema.json"))


# Whole ones


def formats(root: Path) -> dict[str, Format]:
    """Writes whole files of each kind under `root`."""
    from seedjax.convert.importing import convert
    from tests.convert.checkpoints import write_checkpoint

    made: dict[str, Format] = {}
    config = ("config.json", "generation_config.json")
    weights, index = "model.safetensors", "model.safetensors.index.json"
    for family in ("sdar", "llada", "llada-moe", "llada2", "qwen3-moe"):
        folder = write_checkpoint(root / family, family)
        (folder / "generation_config.json").write_text('{"eos_token_id": [3, 2]}')
        made[f"config of {family}"] = Format(folder, config, read_checkpoint)
    folder = write_checkpoint(root / "indexed", "sdar")
    with safe_open(folder / weights, "numpy") as opened:
        places_of = dict.fromkeys(opened.keys(), weights)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places_of}))
    made["safetensors"] = Format(folder, (weights, index), read_checkpoint)
    tokens = ("tokenizer.json", "tokenizer_config.json")
    made["tokenizer"] = Format(folder, tokens, read_tokenizer_folder)

    from tests.convert import test_gguf

    folder = root / "gguf"
    folder.mkdir()
    padding = {"tokenizer.ggml.padding_token_id": 0}
    tensors = test_gguf.whole_model()
    test_gguf.write(folder / "x.gguf", tensors, fields=padding, tokenizer="llama-bpe")
    made["gguf"] = Format(folder, ("x.gguf",), read_checkpoint)

    convert(root / "sdar", root / "model")
    (stored,) = (root / "model/params").iterdir()
    made["model directory"] = Format(
        root / "model", ("config.json", f"params/{stored.name}"), read_model
    )
    made["adapter"] = _adapter(root)
    made["run"] = _run(root)
    made["evaluation"] = _evaluation(root)
    made["records"] = _records(root)
    made["trajectories"] = _trajectories(root)
    made["lines"] = _lines(root)
    schema = {"type": "object", "properties": {"a": {"enum": [1, "b"]}}}
    schema["properties"]["c"] = {"type": "array", "items": {"type": "string"}}
    (root / "schema").mkdir()
    (root / "schema/schema.json").write_text(json.dumps(schema))
    made["schema"] = Format(root / "schema", ("schema.json",), read_schema)
    for name, form in made.items():
        outcome = outcome_of(form, form.whole)
        assert outcome.kind == "read", (name, outcome)
    return made


def _adapter(root: Path) -> Format:
    from seedjax.checkpoints.adapters import save_adapter
    from seedjax.checkpoints.model_directory import read_model_directory
    from seedjax.nn.denoiser import abstract_params
    from seedjax.nn.lora import LoRA, init_adapter

    folder = root / "adapted"
    shutil.copytree(root / "model", folder / "base")
    base = read_model_directory(folder / "base")
    shapes = abstract_params(dataclasses.replace(base.denoiser, layer_loop="unroll"))
    params = base.load_params(shapes)
    recipe = LoRA(rank=2)
    made = init_adapter(jax.random.key(0), params, recipe)
    save_adapter(folder / "adapter", made, recipe, base=str(folder / "base"))
    (stored,) = (folder / "adapter/params").iterdir()
    targets = ("adapter/adapter.json", f"adapter/params/{stored.name}")
    return Format(folder, targets, read_adapter)


def _run(root: Path) -> Format:
    from seedjax.config import DenoiserConfig, to_dict
    from seedjax.data.pipeline import DataConfig
    from seedjax.diffusion.objective import BlockDiffusion
    from seedjax.train.config import RunConfig
    from seedjax.train.optim import OptimizerConfig

    sizes = {"vocab_size": 64, "hidden_size": 8, "num_layers": 1, "num_heads": 1}
    sizes |= {"num_kv_heads": 1, "head_dim": 8, "mlp_size": 8, "block_size": 4}
    data = {"sequence_length": 32, "batch_size": 8, "block_size": 4}
    run = RunConfig(
        model=DenoiserConfig(**sizes),
        objective=BlockDiffusion(),
        data=DataConfig(corpus="nowhere", **data),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        num_steps=10,
    )
    folder = root / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(to_dict(run)))
    lines = [{"step": i, "tokens": 9 * i, "loss": 1.0} for i in range(1, 4)]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    return Format(folder, ("run.json", "metrics.jsonl"), read_run)


def _evaluation(root: Path) -> Format:
    from seedjax.evaluate.complete import Completion
    from seedjax.evaluate.folder import to_line

    folder = root / "evaluation"
    folder.mkdir()
    values = {"settings": {"suite": "x"}, "machine": {}, "title": "t"}
    (folder / "run.json").write_text(json.dumps(values))
    samples = [
        Completion(problem_id="a", sample=i, turn=0, text="x", answer="x")
        for i in range(3)
    ]
    (folder / "samples.jsonl").write_text("".join(map(to_line, samples)))
    return Format(folder, ("run.json", "samples.jsonl"), read_evaluation)


def _records(root: Path) -> Format:
    from seedjax.data.records import Document, pack_document
    from seedjax.data.trajectories import pack_trajectory

    folder = root / "records"
    folder.mkdir()
    ids = np.arange(5, dtype=np.int32)
    document = Document("text", ids, "a.py", "p", "MIT")
    (folder / "document").write_bytes(pack_document(document))
    (folder / "trajectory").write_bytes(pack_trajectory(trajectory_of(ids)))
    return Format(folder, ("document", "trajectory"), read_record)


def trajectory_of(ids: np.ndarray) -> Any:
    from seedjax.data.trajectories import Trajectory

    return Trajectory(0, ids, ids, ids, -1.5, True)


def _trajectories(root: Path) -> Format:
    from seedjax.data.trajectories import TrajectoryManifest, TrajectoryWriter
    from seedjax.text.loading import load_tokenizer

    tokenizer = load_tokenizer(root / "model/tokenizer")
    manifest = TrajectoryManifest(
        model="m",
        tokenizer=tokenizer.fingerprint,
        block_size=4,
        settings="{}",
    )
    writer = TrajectoryWriter(root / "trajectories", manifest, tokenizer)
    writer.write([trajectory_of(np.arange(5, dtype=np.int32))] * 3, prompts=3)
    return Format(root / "trajectories", ("manifest.json",), read_trajectories)


def _lines(root: Path) -> Format:
    from seedjax.tasks.lab.tasks import make_tasks, write_tasks

    folder = root / "lines"
    folder.mkdir()
    tasks = [
        task
        for kind in ("generate", "edit")
        for task in make_tasks(kind, 1, split="train", tier=1, seed=0)
    ]
    write_tasks(folder / "tasks.jsonl", tasks)
    feedback = [
        {"prompt": "p", "completion": "a", "accepted": True},
        {"prompt": "p", "completion": "b", "accepted": False},
        {"prompt": "q", "accepted": "a", "rejected": "b"},
    ]
    source = [{"text": "x = 1\n", "path": "a.py", "license": "MIT"}] * 2
    for name, lines in {"feedback": feedback, "source": source}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    targets = ("tasks.jsonl", "feedback.jsonl", "source.jsonl")
    return Format(folder, targets, read_lines)
