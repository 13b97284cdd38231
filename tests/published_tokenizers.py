"""Tokenizers like published ones, in small, as the files that they come in."""

import json
import sysconfig
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

STDLIB = Path(sysconfig.get_path("stdlib"))
SOURCES = [(STDLIB / name).read_text() for name in ("textwrap.py", "heapq.py")]
TEXTS = (
    *("", " ", "\n\n  \n", "x = 1", "  def f(a, b):\n\treturn a\r\n", "été 漢字 😀"),
    *("e\u0301", "\u2581a \u2581", "\0\x7f\x85", "ﬁ 12345", "I'll  don't", "\ufeff"),
)

CHATML = (
    "{% for message in messages %}{% if message.role == 'critic' %}"
    "{{ raise_exception('no critics') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = """
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
# The header is put together from parts.
COMPOSED = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    "{{ message['content'] + '<|end|>\\n' }}{% endfor %}"
)

QWEN_FLAGGED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_UNFLAGGED = [
    *("<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
]
SEED_CODER = [
    *("<[begin\u2581of\u2581sentence]>", "<[PAD\u2581TOKEN]>"),
    *("<[end\u2581of\u2581sentence]>", "<[MASK_TOKEN]>"),
    *("<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"),
]
LLAMA_FLAGGED = [
    *("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
]

Files = dict[str, bytes]


def byte_level(**config) -> tokenizers.Tokenizer:
    """Learned on the standard library, byte by byte as GPT-2's."""
    library = tokenizers.Tokenizer(models.BPE(**config))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(SOURCES, trainer)
    return library


def files_of(library: tokenizers.Tokenizer, **config) -> Files:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    return {
        "tokenizer.json": library.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def opens_with(library: tokenizers.Tokenizer, bos: str) -> None:
    special = [(bos, library.token_to_id(bos))]
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=special
    )


def qwen() -> Files:
    library = byte_level()
    library.add_special_tokens(QWEN_FLAGGED)
    library.add_tokens(QWEN_UNFLAGGED)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
    return files_of(library, **names, chat_template=CHATML)


def seed_coder() -> Files:
    library = byte_level()
    library.add_special_tokens(SEED_CODER)
    opens_with(library, SEED_CODER[0])
    names = dict(zip(("bos_token", "pad_token", "eos_token"), SEED_CODER, strict=False))
    return files_of(library, **names)


def llama3() -> Files:
    library = byte_level()
    library.add_special_tokens(LLAMA_FLAGGED)
    opens_with(library, LLAMA_FLAGGED[0])
    names = {"bos_token": LLAMA_FLAGGED[0], "eos_token": LLAMA_FLAGGED[1]}
    return files_of(library, **names) | {"chat_template.jinja": LLAMA.encode()}


def llama2() -> Files:
    """Spaces are U+2581, one is put first, and bytes stand in for missing letters."""
    letters = [*"\u2581defghijklmnopqrstuvwxyz\n"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*letters, "de", "def", "\u2581def"]
    merges = [("d", "e"), ("de", "f"), ("\u2581", "def")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    library.decoder = decoders.Sequence(
        [
            *(decoders.Replace("\u2581", " "), decoders.ByteFallback()),
            *(decoders.Fuse(), decoders.Strip(" ", 1, 0)),
        ]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    opens_with(library, "<s>")
    bos = {"__type": "AddedToken", "content": "<s>", "special": True}
    return files_of(library, bos_token=bos, eos_token="</s>")


MAKERS = {
    "qwen": qwen,
    "seed_coder": seed_coder,
    "llama3": llama3,
    "llama2": llama2,
}


def reference(files: Files, directory: Path):
    """The same files, read by `transformers`."""
    transformers = pytest.importorskip("transformers", reason="the reference")
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return transformers.AutoTokenizer.from_pretrained(directory)


def edited(files: Files, name: str = "tokenizer.json", **fields) -> Files:
    content = json.loads(files[name])
    return {**files, name: json.dumps({**content, **fields}).encode()}
