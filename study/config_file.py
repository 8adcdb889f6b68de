"""Reads a config file strictly: every mistake is one line naming the file, the key, what was found, what is allowed."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from study.config import BUILT_IN, OF_OPTIMIZER, OF_SCHEDULE, Allowed, Block, Images, Mistake, StudyConfig
from study.errors import UserError

LARGEST_FILE = 1_000_000
"""Largest config file, in bytes."""


def load(
    path: str | Path, overrides: Sequence[str] = (), tell: Callable[[str], None] = lambda line: None
) -> StudyConfig:
    """Read a config file and apply dotted overrides such as `training.epochs=2`.

    What the file says of models or of an optimiser that an override replaces is dropped, and `tell` is told. Raises
    UserError with one line: the file or the override, the key, what was found, what is allowed.
    """
    tree = _read(Path(path))
    given: list[str] = []
    for override in overrides:
        key = override.partition("=")[0]
        if key in given:
            raise UserError(f"{override!r}: found {key} for the second time; allowed: once")
        given.append(key)
        _override(tree, override)
    _see_that_models_exist(tree, str(path))
    dropped = list(_drop_replaced(tree, given))
    config = validate(tree, str(path))
    for line in dropped:
        tell(f"{path}: {line}")
    return config


def validate(tree: object, source: str) -> StudyConfig:
    """The config in a tree of plain values. Raises UserError naming `source`."""
    try:
        # From JSON, since in strict mode pydantic takes a list for a tuple, and a whole number for a float, only there.
        return StudyConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise UserError(f"{source}: {_describe(error)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not a config: {_one_line(error)}") from None


@contextlib.contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Name the config file in mistakes that show only when it is used: a missing dataset, too large a split."""
    try:
        yield
    except UserError as error:
        message = str(error)
        # Others name a file of their own.
        if message.partition(":")[0].partition(".")[0] in StudyConfig.model_fields:
            raise UserError(f"{path}: {message}") from None
        raise


def allowed(field: FieldInfo) -> str:
    """What a field may hold, in words: those of its Allowed, else of its type and limits."""
    words = [part.words for part in field.metadata if isinstance(part, Allowed)]
    return words[-1] if words else _allowed(field.annotation, field.metadata)


def _allowed(kind: object, limits: Sequence[object] = ()) -> str:
    """A type and its limits in words."""
    if get_origin(kind) is Annotated:
        kind, *inner = get_args(kind)
        limits = [*inner, *(part for field in inner if isinstance(field, FieldInfo) for part in field.metadata)]
        if said := [part.words for part in limits if isinstance(part, Allowed)]:
            return said[-1]
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        # Limits of a field that may be null are those of what it may hold else.
        words = " or ".join(_allowed(part, limits) for part in parts)
        return f"{words}, or null" if NoneType in get_args(kind) else words
    if get_origin(kind) is Literal:
        *most, last = (repr(value).strip("'") for value in get_args(kind))
        return f"{', '.join(most)} or {last}" if most else last
    if get_origin(kind) is tuple:
        inner, *more = get_args(kind)
        return f"a list, each {_allowed(inner)}" if more == [...] else f"{1 + len(more)} values, each {_allowed(inner)}"
    if (isinstance(kind, type) and issubclass(kind, Block)) or get_origin(kind) is dict:
        return "key: value pairs"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _limits(limits)
    return "true or false" if kind is bool else "text" if kind is str else "a value"


def _limits(limits: Sequence[object]) -> str:
    words = {"ge": " from", "gt": " above", "le": " to", "lt": ", below"}
    found = [(word, getattr(part, name, None)) for part in limits for name, word in words.items()]
    # Seeds must fit 63 bits, which nobody needs to be told.
    return "".join(f"{word} {limit:,}" for word, limit in found if limit is not None and limit < 2**63)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        if len(content) > LARGEST_FILE:
            raise UserError(f"{path}: found {len(content):,} bytes; allowed: at most {LARGEST_FILE:,}")
        text = content.decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r}: not a file name: {error}") from None
    return _parse(text, str(path))


def _parse(text: str, source: str) -> dict[str, Any]:
    """YAML → plain values. Interpolation and aliases are refused: a config says what it means, once."""
    if "${" in text:
        raise UserError(f"{source}: found '${{'; allowed: plain values, no interpolation")
    try:
        # A pass of its own, before OmegaConf expands them: a few nested aliases can fill the memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{source}: found an alias ('*name'); allowed: plain values")
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except KeyValidationError:
        raise UserError(
            f"{source}: found a key that is neither a word nor a number; allowed: words, in quotes if need be"
        ) from None
    except yaml.MarkedYAMLError as error:
        rule = "; allowed: each key once" if "duplicate key" in str(error.problem) else ""
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{source}: not valid YAML: {line}{_one_line(error.problem)}{rule}") from None
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {_one_line(error)}") from None
    except AssertionError:
        raise UserError(f"{source}: not valid YAML: found a lone value; allowed: key: value lines") from None
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{source}: found no keys; allowed: {', '.join(StudyConfig.model_fields)}")
    return tree  # type: ignore[return-value]  # other keys than words are mistakes, told by pydantic


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in the tree; the value is read as YAML."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(part.isidentifier() for part in parts):
        raise UserError(f"{override!r}: found no key=value; allowed: dotted overrides such as training.epochs=2")
    value = _parse(f"value: {text}", repr(override))
    if set(value) != {"value"}:
        raise UserError(f"{override!r}: found several values; allowed: one")
    node = tree
    for part in parts[:-1]:
        if node is tree and part == "dataset" and isinstance(node.get(part), str):
            # A name alone is short for the block that has nothing else.
            node[part] = {"name": node[part]}
        if not isinstance(node.setdefault(part, {}), dict):
            raise UserError(f"{override!r}: {key}: found a value at {part}, which has no keys; allowed: {part}=…")
        node = node[part]
    node[parts[-1]] = value["value"]


def _see_that_models_exist(tree: dict[str, Any], source: str) -> None:
    """Raise UserError for a model that is neither built in nor an import path, before anything is said of baselines."""
    models = tree.get("models")
    for i, model in enumerate(models if isinstance(models, list) else ()):
        name, key = (model.get("model"), f"models.{i}.model") if isinstance(model, dict) else (model, f"models.{i}")
        if isinstance(name, str) and re.fullmatch(r"[\w.]+", name) and name not in BUILT_IN:
            close = difflib.get_close_matches(name, BUILT_IN, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            path = ":".join(name.rsplit(".", 1)) if "." in name else "mypackage.nets:MyNet"
            allowed = f"{', '.join(BUILT_IN)}, or an import path such as {path}"
            raise UserError(f"{source}: {key}: found {_show(name)}, which is no model{hint}; allowed: {allowed}")


def _drop_replaced(tree: dict[str, Any], given: Sequence[str]) -> Iterator[str]:
    """Drop what the file says of models, an optimiser or a schedule that an override has replaced; say so in lines.

    `given` are the keys of all overrides: the values they set are kept, and refused if they do not fit.
    """

    def stays(key: str) -> bool:
        return any(f"{key}.".startswith(f"{override}.") or override.startswith(f"{key}.") for override in given)

    analysis, training, models = (tree.get(key) for key in ("analysis", "training", "models"))
    if "models" in given and isinstance(models, list) and isinstance(analysis, dict):
        names = [str(model.get("name")) if isinstance(model, dict) else str(model) for model in models]
        dropped: dict[str, list[str]] = {}
        for key in ("candidate", "baselines", "references", "expected"):
            value = analysis.get(key)
            if stays(f"analysis.{key}") or not isinstance(value, str | list | dict):
                continue
            said = [value] if isinstance(value, str) else list(map(str, value))
            # The first model is the candidate where none is named.
            wanted = [n for n in names if key != "baselines" or n != (analysis.get("candidate") or names[0])]
            if gone := [name for name in said if name not in wanted]:
                dropped[f"analysis.{key}"] = gone
                kept = [name for name in said if name in wanted]
                analysis[key] = {name: value[name] for name in kept} if isinstance(value, dict) else kept or None
        if dropped:
            yield "models=… leaves out what these speak of, so it is dropped: " + "; ".join(
                f"{key}: {', '.join(gone)}" for key, gone in dropped.items()
            )
    for choice, table in (("optimizer", OF_OPTIMIZER), ("schedule", OF_SCHEDULE)):
        if f"training.{choice}" in given and isinstance(training, dict):
            chosen = str(training[choice])
            for key in [k for k in table if training.get(k) is not None and chosen not in table[k]]:
                if not stays(f"training.{key}"):
                    yield f"training.{key}: {training.pop(key)} is dropped, since {chosen} has none"


def _describe(error: ValidationError) -> str:
    """The first mistake as `key: found …; allowed: …`."""
    # The pydantic error of an unknown key comes last; it is the likelier cause of the others.
    mistakes = error.errors(include_url=False)
    mistake = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, Mistake):
        return f"{cause.key}: found {_show(cause.found)}; allowed: {cause.allowed}"
    place, field, block = _place(mistake["loc"])
    found = mistake["input"]
    if mistake["type"] == "missing" and isinstance(place[-1], int):
        # Too short a list is told as the list that it is.
        place = place[:-1]
    key = ".".join(map(str, place)) or "the file"
    if mistake["type"] == "extra_forbidden":
        known = list(block.model_fields)
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{key}: unknown key{hint}; allowed: {', '.join(known)}"
    if mistake["type"] == "missing" and isinstance(mistake["loc"][-1], str):
        return f"{key}: found nothing; allowed: this key is required"
    if isinstance(cause, ValueError):
        return f"{key}: found {_show(found)}; allowed: {_one_line(cause)}"
    words = "key: value pairs" if field is None else allowed(field)
    if mistake["type"] in ("string_type", "union_tag_invalid") and isinstance(found, int | float) and _is_text(field):
        taken = "a truth value" if isinstance(found, bool) else "a number"
        words += f"; YAML took it for {taken}, in quotes it is text: '{key}=\"…\"' in a shell"
    return f"{key}: found {_show(found)}; allowed: {words}"


def _place(loc: Sequence[str | int]) -> tuple[list[str | int], FieldInfo | None, type[Block]]:
    """The keys that lead to a mistake, as the user wrote them; the innermost field among them; the block it is in.

    pydantic's location also holds the tags and types of alternatives, and keys that are not ours but the user's.
    """
    place: list[str | int] = []
    block: type[Block] = StudyConfig
    field: FieldInfo | None = None
    below: type[Block] | None = StudyConfig
    theirs, tagged = False, True
    for part in loc:
        if not tagged and str(part).startswith("<"):
            tagged = True
        elif isinstance(part, int):
            place.append(part)
        elif theirs:
            place.append(part)
            theirs = False
        elif below is not None:
            place.append(part)
            block = below
            if part in block.model_fields:
                field = block.model_fields[part]
                below, theirs, tagged = _block(field.annotation), get_origin(field.annotation) is dict, False
    return place, field, block


def _block(kind: object) -> type[Block] | None:
    """The block that a type holds, anywhere in it."""
    if isinstance(kind, type) and issubclass(kind, Block):
        return kind
    return next(filter(None, map(_block, get_args(kind))), None)


def _is_text(field: FieldInfo | None) -> bool:
    """Whether any text will do for a field, or for an item of it."""

    def holds(kind: object) -> bool:
        return kind is str or any(map(holds, get_args(kind)))

    return field is not None and _block(field.annotation) in (None, Images) and holds(field.annotation)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
