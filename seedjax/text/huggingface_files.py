"""The files of a Hugging Face tokenizer, and their contents.

    tokenizer.json          pieces, merges, how text is cut, added tokens
    tokenizer_config.json   which token is used for what, chat template
    special_ids.json        ours: special ids that the other files do not give

Facts about published tokenizers that no file holds are in `published_spellings.toml`:
the names of the tokens that seedjax needs, and how text is cut where the files are
`vocab.json` and `merges.txt` alone.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from types import MappingProxyType
from typing import Any, NamedTuple

from seedjax.config import check_fields
from seedjax.errors import InputError
from seedjax.files.package import package_table
from seedjax.files.text import decode_text, parse_json
from seedjax.text.tokenizer import InfillOrder, SpecialTokens

HUGGING_FACE_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_ids.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
FILES = (
    HUGGING_FACE_FILE,
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    GENERATION_FILE,
    TEMPLATE_FILE,
    SPECIAL_FILE,
    VOCABULARY_FILE,
    MERGES_FILE,
)

_PUBLISHED = package_table("seedjax.text", "published_spellings.toml")
MASKS: tuple[str, ...] = tuple(_PUBLISHED["masks"])
ENDS_OF_TURN: tuple[str, ...] = tuple(_PUBLISHED["ends_of_turn"])
ENDS = frozenset((*ENDS_OF_TURN, *_PUBLISHED["ends"]))
INFILLS: Mapping[tuple[str, ...], InfillOrder] = MappingProxyType(
    {tuple(known["tokens"]): known["order"] for known in _PUBLISHED["infills"]}
)
# Tokens of this form are special, even where the file does not mark them, as Qwen's
# does for fill in the middle.
SPECIAL_FORM = re.compile(r"<\|.*\|>|<\[.*\]>", re.DOTALL)
QWEN: Mapping[str, Any] = MappingProxyType(_PUBLISHED["qwen"])

_OBJECT = dict | None
_TOKEN = str | dict | None
_KINDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        HUGGING_FACE_FILE: {
            "added_tokens": list[dict] | None,
            "normalizer": _OBJECT,
            "pre_tokenizer": _OBJECT,
            "post_processor": _OBJECT,
            "decoder": _OBJECT,
        },
        CONFIG_FILE: {
            **{
                f"{use}_token": _TOKEN
                for use in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
            },
            "added_tokens_decoder": _OBJECT,
            "additional_special_tokens": list | dict | None,
            "extra_special_tokens": list | dict | None,
            "chat_template": str | list[dict] | None,
            "tokenizer_class": str | None,
        },
        GENERATION_FILE: {"eos_token_id": int | list[int] | None},
    }
)
"""Types of the fields that are used."""
LARGEST_ID = 1 << 24  # beyond all vocabularies; a table of the pieces is made


class Contents(NamedTuple):
    """Contents of the files.

    Attributes:
      layout: `tokenizer.json`.
      pieces: each id's piece, as the model or the added tokens write it.
      added: added tokens by id.
      control: spellings of the ids that no text may turn into.
      special: ids by their use.
      infill_order: as far as the names of the infilling tokens give it.
      eos_token_ids: ids that end an answer: those of `generation_config.json` first,
        then EOS and all tokens that are known to end one by their spelling.
      names: spellings by use, as templates name them: "eos_token".
      chat_template: Jinja source, if the model has any.
    """

    layout: Mapping[str, Any]
    pieces: Mapping[int, str]
    added: Mapping[int, Mapping[str, Any]]
    control: Mapping[int, str]
    special: SpecialTokens
    infill_order: InfillOrder
    eos_token_ids: tuple[int, ...]
    names: Mapping[str, str]
    chat_template: str | None


def read_contents(files: Mapping[str, bytes]) -> Contents:
    """Reads the files, given by name.

    Raises:
      InputError: for damaged files, files that contradict each other, a tokenizer that
        is no byte-pair model, or a special id that it does not have.
    """
    layout = read_json(files, HUGGING_FACE_FILE)
    older = read_json(files, "special_tokens_map.json")
    config = {**older, **read_json(files, CONFIG_FILE)}
    for name, kinds in _KINDS.items():
        check_fields(
            config if name == CONFIG_FILE else read_json(files, name), kinds, name
        )
    model = _checked_model(layout)
    with refusing_damage():
        return _contents(files, layout, config, model)


def _contents(
    files: Mapping[str, bytes],
    layout: Mapping[str, Any],
    config: Mapping[str, Any],
    model: Mapping[str, Any],
) -> Contents:
    added = _added_tokens(layout, config, files)
    ids = model["vocab"] | {token["content"]: i for i, token in added.items()}
    names = _named_tokens(config)
    special = _special_tokens(ids, added, names, layout, files)
    flagged = {*names.values(), *_more_special_tokens(config)}
    template = _chat_template(config, files)
    pieces = {i: piece for piece, i in ids.items()}
    control = {
        i: pieces[i]
        for i in sorted(
            {i for i, token in added.items() if _is_special(token)}
            | {ids[spelling] for spelling in flagged if spelling in ids}
            | {*special.ids}
        )
    }
    eos = _eos_token_ids(special, control, files)
    _check_unmade(control, added, model)
    prefix = None if special.fim_prefix is None else pieces[special.fim_prefix]
    order = next((o for known, o in INFILLS.items() if known[0] == prefix), None)
    return Contents(
        layout=layout,
        pieces=pieces,
        added=added,
        control=control,
        special=special,
        infill_order=order or "prefix_suffix_middle",
        eos_token_ids=eos,
        names=names,
        chat_template=template,
    )


@contextmanager
def refusing_damage() -> Iterator[None]:
    """Raises `InputError` for what goes wrong with values that no file should hold."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{HUGGING_FACE_FILE} or a file beside it is damaged "
            f"({type(error).__name__}: {error}); get an intact copy"
        ) from error


def read_json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The object in a file, an empty one if there is no such file.

    Raises:
      InputError: if the file is damaged.
    """
    if name not in files:
        return {}
    content = parse_json(files[name], name, hint="get an intact copy")
    if not isinstance(content, dict):
        raise InputError(f"{name} holds no JSON object; get an intact copy")
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """A file that `read_json` reads."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode()


def _text(files: Mapping[str, bytes], name: str) -> str:
    return decode_text(files[name], name)


def _checked_model(layout: Mapping[str, Any]) -> dict[str, Any]:
    model = layout.get("model")
    if not isinstance(model, dict):
        raise InputError(f"{HUGGING_FACE_FILE} holds no model; get an intact copy")
    kind, vocabulary = model.get("type", "BPE"), model.get("vocab")
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    if kind != "BPE" or any(model.get(affix) for affix in affixes):
        raise InputError(
            f"the tokenizer is a {kind} model; known are byte-pair models (BPE) over "
            "bytes, or with byte fallback"
        )
    if not isinstance(vocabulary, dict) or not all(
        type(i) is int and 0 <= i < LARGEST_ID for i in vocabulary.values()
    ):
        raise InputError(f"{HUGGING_FACE_FILE} holds no ids; get an intact copy")
    return model


def _added_tokens(
    layout: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[int, dict[str, Any]]:
    """Added tokens by id: those of `tokenizer.json`, and more that other files name."""
    listed = list(layout.get("added_tokens") or ())
    more = (config.get("added_tokens_decoder") or {}).items()
    listed += [{**token, "id": int(i)} for i, token in more]
    oldest = read_json(files, "added_tokens.json").items()
    listed += [{"content": spelling, "id": i} for spelling, i in oldest]
    found: dict[int, dict[str, Any]] = {}
    for token in listed:
        if type(token["id"]) is not int or not 0 <= token["id"] < LARGEST_ID:
            raise InputError(
                f"an added token has the id {token['id']!r}; it must be a number"
            )
        known = found.setdefault(token["id"], token)
        if not isinstance(token["content"], str):
            raise InputError(
                f"added token {token['id']} is no text; get an intact copy"
            )
        if known["content"] != token["content"] or not token["content"]:
            raise InputError(
                f"the tokenizer's files call id {token['id']} {known['content']!r} and "
                f"{token['content']!r}; get files that belong together"
            )
        if token.get("special"):
            found[token["id"]] = {**known, "special": True}
    return dict(sorted(found.items()))


def _is_special(added: Mapping[str, Any]) -> bool:
    spelling = added["content"]
    special_form = SPECIAL_FORM.fullmatch(spelling) is not None
    return special_form or bool(added.get("special") and not spelling.isspace())


def _spelling(token: Any) -> str | None:
    """A token as a config writes it: a string, or an object that holds one."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    uses = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    spelled = {f"{use}_token": _spelling(config.get(f"{use}_token")) for use in uses}
    return {name: spelling for name, spelling in spelled.items() if spelling}


def _more_special_tokens(config: Mapping[str, Any]) -> Iterable[str | None]:
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = config.get(name) or ()
        yield from map(
            _spelling, listed.values() if isinstance(listed, dict) else listed
        )


def _special_tokens(
    ids: Mapping[str, int],
    added: Mapping[int, Mapping[str, Any]],
    names: Mapping[str, str],
    layout: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> SpecialTokens:
    """Ids by their use: what `special_ids.json` says, then what the config says, then
    what the known spellings give."""
    stored = read_json(files, SPECIAL_FILE)
    there = set(ids.values())
    for name, token in stored.items():
        if name not in {field.name for field in fields(SpecialTokens)}:
            raise InputError(f"{name!r} is no special token that seedjax knows")
        if token is not None and (type(token) is not int or token not in there):
            raise InputError(
                f"special token {name} is id {token!r}, which the tokenizer does not "
                f"have; its ids go from 0 to {max(there, default=-1)}"
            )
    found: dict[str, int | None] = dict(stored)
    if "bos" not in found:
        found["bos"] = _first_id(layout)
    for name in ("mask", "pad", "eos"):
        spelling = names.get(f"{name}_token")
        if spelling is None or name in found:
            continue
        if spelling not in ids:
            if name != "eos":  # only declared, as Llama's [PAD]: it does not exist
                continue
            raise InputError(
                f"{name}_token is {spelling!r}, which the tokenizer does not have; get "
                "files that belong together"
            )
        found[name] = ids[spelling]
    spellings = {token["content"]: i for i, token in added.items()}
    for name, known in {"mask": MASKS, "end_of_turn": ENDS_OF_TURN}.items():
        known_ids = [spellings[spelling] for spelling in known if spelling in spellings]
        if len(known_ids) == 1:  # of several, which is meant is unknown
            found.setdefault(name, known_ids[0])
    for parts in INFILLS:
        if all(spelling in spellings for spelling in parts):
            names_of_parts = ("fim_prefix", "fim_suffix", "fim_middle")
            for name, spelling in zip(names_of_parts, parts, strict=True):
                found.setdefault(name, spellings[spelling])
    return SpecialTokens(**found)


def _first_id(layout: Mapping[str, Any]) -> int | None:
    """The id that the tokenizer itself puts before a text, if any. A BOS token that is
    only declared, as in GPT-2's files, opens nothing."""
    processor = layout.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            first = []
            for part in step["single"]:
                if "SpecialToken" not in part:
                    break
                name = part["SpecialToken"]["id"]
                first += step["special_tokens"][name]["ids"]
            if len(first) > 1:
                raise InputError(
                    f"the tokenizer puts tokens {first} before a text; known are those "
                    f"that put one or none; say which in {SPECIAL_FILE}, as bos"
                )
            return _whole_number(first[0]) if first else None
        if step.get("type") in ("BertProcessing", "RobertaProcessing"):
            return _whole_number(step["cls"][1])
    return None


def _whole_number(token: Any) -> int:
    if type(token) is not int:
        raise InputError(
            f"post_processor has the id {token!r}; it must be a whole number"
        )
    return token


def _check_unmade(
    control: Mapping[int, str],
    added: Mapping[int, Mapping[str, Any]],
    model: Mapping[str, Any],
) -> None:
    """That no special token is an ordinary piece, which text is made of."""
    made = {"".join(merge).replace(" ", "") for merge in model.get("merges", ())}
    for i, piece in control.items():
        if piece in made or (len(piece) == 1 and i not in added):
            raise InputError(
                f"id {i} cannot be a special token, for it is the ordinary token "
                f"{piece!r}; give the id of a token that no text has"
            )


def _chat_template(config: Mapping[str, Any], files: Mapping[str, bytes]) -> str | None:
    """A template in a file of its own goes before one in the config, where several
    may stand, by name."""
    if TEMPLATE_FILE in files:
        return _text(files, TEMPLATE_FILE)
    template = config.get("chat_template")
    if isinstance(template, list):
        by_name = {named["name"]: named["template"] for named in template}
        template = by_name.get("default")
    if template is not None and not isinstance(template, str):
        raise InputError(f"chat_template of {CONFIG_FILE} is no text; get another copy")
    return template


def _eos_token_ids(
    special: SpecialTokens, control: Mapping[int, str], files: Mapping[str, bytes]
) -> tuple[int, ...]:
    listed = read_json(files, GENERATION_FILE).get("eos_token_id")
    listed = listed if isinstance(listed, list) else [listed]
    known = [i for i, spelling in control.items() if spelling in ENDS]
    ends = dict.fromkeys([*listed, special.eos, special.end_of_turn, *known])
    return tuple(i for i in ends if i not in (None, special.mask))


def tokenizer_json(files: Mapping[str, bytes]) -> bytes:
    """`tokenizer.json`, made from `vocab.json` and `merges.txt` where it is missing, as
    in Dream's repositories.

    Raises:
      InputError: if those are missing too, or of a class that is not known to cut text
        as Qwen2's.
    """
    if HUGGING_FACE_FILE in files:
        return files[HUGGING_FACE_FILE]
    needed = (VOCABULARY_FILE, MERGES_FILE, CONFIG_FILE)
    if missing := [name for name in needed if name not in files]:
        raise InputError(
            f"{HUGGING_FACE_FILE} is missing, and so is {' and '.join(missing)}; get "
            "all files of the model's tokenizer"
        )
    kind = read_json(files, CONFIG_FILE).get("tokenizer_class")
    if kind not in QWEN["classes"]:
        raise InputError(
            f"{HUGGING_FACE_FILE} is missing, and the tokenizer is a {kind!r}; without "
            f"that file only {', '.join(QWEN['classes'])} are known"
        )
    cut = {
        "type": "Split",
        "pattern": {"Regex": QWEN["words"]},
        "behavior": "Isolated",
        "invert": False,
    }
    flags = dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), False)
    to_bytes = {"type": "ByteLevel", **flags}
    merges = [
        line.split(" ")
        for line in _text(files, MERGES_FILE).split("\n")
        if line and not line.startswith("#version")
    ]
    return to_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, to_bytes]},
            "post_processor": None,
            "decoder": to_bytes,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": read_json(files, VOCABULARY_FILE),
                "merges": merges,
            },
        }
    )


def add_token(layout: Mapping[str, Any], spelling: str, token: int) -> dict[str, Any]:
    """`tokenizer.json` with one special token more, of the id `token`."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added: Sequence[Any] = layout.get("added_tokens") or ()
    entry = {"id": token, "content": spelling, **flags, "special": True}
    return {**layout, "added_tokens": [*added, entry]}
