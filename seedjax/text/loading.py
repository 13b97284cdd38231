"""Opens the tokenizer of a directory, whichever kind it is."""

from pathlib import Path

from seedjax.errors import InputError
from seedjax.text.huggingface_files import HUGGING_FACE_FILE, MERGES_FILE
from seedjax.text.sentencepiece import MODEL_FILE, SentencePieceTokenizer
from seedjax.text.tokenizer import Tokenizer


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Opens the tokenizer that `Tokenizer.save` wrote, or that of a Hugging Face model.
    Where both kinds of file are, as published Llama models have them, `tokenizer.json`
    is read.

    Raises:
      InputError: if the directory holds none, or a damaged one.
    """
    published = (HUGGING_FACE_FILE, MERGES_FILE)
    if any((Path(directory) / name).is_file() for name in published):
        # Late: most models never need the library `tokenizers`.
        from seedjax.text.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer.open(directory)
    path = Path(directory) / MODEL_FILE
    if not path.is_file():
        raise InputError(
            f"no tokenizer at {directory}: {MODEL_FILE} is missing, and so is "
            f"{HUGGING_FACE_FILE}; give a directory that a corpus or a model keeps its "
            "tokenizer in"
        )
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
