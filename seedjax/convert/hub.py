"""Where a checkpoint is: here already, or to be fetched from the Hugging Face Hub.

Only weights, configurations and tokenizers are fetched, never code.
"""

import re
from pathlib import Path

from seedjax.checkpoints.fetchable import fetchable_models
from seedjax.checkpoints.model_directory import (
    bundled_models,
    refuse_bare_adapter,
    resolve_model,
)
from seedjax.errors import InputError

HUB = "https://huggingface.co"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Files at the top of a repository; folders hold other copies of the same weights.
DESCRIPTIONS = (
    "*.json",
    "*.jinja",
    "tokenizer.*",
    "*.model",
    "*.tiktoken",
    "vocab.txt",
    "merges.txt",
)
SAFETENSORS = ("*.safetensors",)
PYTORCH = ("pytorch_model*.bin",)
UNWANTED = ("*/*", "consolidated*", "adapter_model*")


def resolve_checkpoint(name_or_path: str | Path, revision: str | None = None) -> Path:
    """The local directory or file of a checkpoint.

    Args:
      name_or_path: an existing directory or file, which is returned as it is; a bundled
        model's name; or an id of the Hub such as "org/name", which is fetched into the
        Hub's cache unless it is there. Progress goes to standard error.
      revision: branch, tag or commit on the Hub; the default branch if None.

    Raises:
      InputError: if the path does not exist and is no id, or the Hub does not give the
        checkpoint. The message says which files to fetch by other means; or a model
        is to be fetched first.
    """
    path = Path(name_or_path).expanduser()
    if path.exists():
        refuse_bare_adapter(path)
        if revision is not None:
            raise InputError(
                f"{path} is here already, so revision {revision!r} cannot be chosen; "
                "leave it out, or give the id on the Hub"
            )
        return path
    name = str(name_or_path)
    if name in bundled_models() or name in fetchable_models():
        return resolve_model(name)
    if HUB_ID.fullmatch(name) is None:
        raise InputError(
            f"{name} does not exist, nor is it an id on the Hub such as org/name; give "
            "a directory, a file or such an id"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name} is not a directory here, and fetching it needs the package "
            "huggingface_hub; run `pip install 'seedjax[convert]'`, or "
            + _by_hand(name, revision)
        ) from None

    def fetched(weights: tuple[str, ...]) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*DESCRIPTIONS, *weights],
                ignore_patterns=list(UNWANTED),
            )
        )

    try:
        directory = fetched(SAFETENSORS)
        if not any(directory.glob("*.safetensors")):
            directory = fetched(PYTORCH)
    except Exception as error:  # the client, its HTTP library and the disk raise here
        raise InputError(
            f"{name} is not here and was not fetched ({_cause(error)}); "
            + _by_hand(name, revision)
        ) from error
    refuse_bare_adapter(directory)
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("*.bin")):
        raise InputError(
            f"{name} has neither safetensors nor pytorch_model.bin; if it has .gguf "
            f"files, fetch one from {_page(name, revision)} and give its path"
        )
    return directory


def _by_hand(name: str, revision: str | None) -> str:
    """Advice for a machine without the Hub's client or without a network."""
    return (
        "download config.json, generation_config.json, all *.safetensors and "
        "model.safetensors.index.json (or pytorch_model*.bin and its index), "
        "tokenizer.json, tokenizer_config.json, special_tokens_map.json and "
        f"chat_template.jinja, as far as they exist, from {_page(name, revision)} into "
        f"one directory and give that directory (./{name.rpartition('/')[2]}) instead "
        f"of {name}"
    )


def _page(name: str, revision: str | None) -> str:
    return f"{HUB}/{name}/tree/{revision or 'main'}"


def _cause(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        error = error.__cause__
    causes = {
        errors.GatedRepoError: "its owner grants access on its page, then run `hf auth "
        "login`",
        errors.RepositoryNotFoundError: "there is no such model on the Hub, or it is "
        "private: run `hf auth login`",
        errors.RevisionNotFoundError: "there is no such revision",
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set, and the cache lacks it",
        errors.LocalEntryNotFoundError: "it is not in the cache, and the Hub cannot be "
        "reached",
    }
    for kind, cause in causes.items():
        if isinstance(error, kind):
            return cause
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
