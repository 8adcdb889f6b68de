"""Reads a config file strictly: every mistake is one line naming the file, the key, what was found, what is allowed."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException
from pydantic import ValidationError

from study.config import Analysis, Factorial, Launching, LogUniform, Mistake, Reference, StudyConfig, Training, Wandb
from study.errors import UserError

LARGEST_FILE = 1_000_000
"""Bytes a config file may have; a larger one is a mistake."""

NAME = "1 to 80 letters, digits, '.', '_' or '-', beginning with a letter or digit"
ALLOWED = {
    "name": NAME,
    "models": "a list of model names (see `python -m study models`) or import paths such as mypackage.nets:MyNet, "
    "each of at most 90 letters",
    "learning_rates": "a list of numbers above 0, or {log_uniform: [low, high], count: n, seed: s}",
    "learning_rates.log_uniform": "two numbers above 0, the smaller first",
    "seeds": "a count above 0, a list of whole numbers from 0, or {init: n, order: n, split: n}",
    "launch.pack": "learning_rates, or a number of members above 0",
    "wandb.project": NAME,
    "wandb.entity": NAME,
    "analysis.candidate": "one of models",
    "analysis.baselines": "a list of models other than the candidate",
    "analysis.references": "model: a list of {source: text, accuracy: a number from 0 to 1, note: text}",
    "analysis.expected": "model: [low, high], two accuracies between 0 and 1",
}
"""What a key may hold, where that takes more words than the type's own."""

WORDS = {
    "dict_type": "key: value pairs",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "model_type": "key: value pairs",
    "string_too_long": "fewer letters",
    "string_too_short": "text",
    "string_type": "text",
    "tuple_type": "a list",
}
"""pydantic's types of mistakes, where its own words are those of programmers."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a config file and apply dotted overrides such as `training.epochs=2`.

    Raises UserError with one line: the file or the override, the key, what was found, what is allowed.
    """
    tree = _read(Path(path))
    keys = [override.partition("=")[0] for override in overrides]
    for i, override in enumerate(overrides):
        if keys[i] in keys[:i]:
            raise UserError(f"{override!r}: found {keys[i]} for the second time; allowed: once")
        tree = _override(tree, override)
    return validate(tree, str(path))


def validate(tree: object, source: str) -> StudyConfig:
    """The config in a tree of plain values. Raises UserError naming `source`."""
    try:
        text = json.dumps(tree, allow_nan=True)
        return StudyConfig.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{source}: {_describe(error)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not a config: {_one_line(error)}") from None


@contextlib.contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Name the config file in mistakes that show only as it is used: a dataset that is not there, too large a split."""
    try:
        yield
    except UserError as error:
        message = str(error)
        # Others name a file of their own.
        if message.partition(":")[0].partition(".")[0] in StudyConfig.model_fields:
            raise UserError(f"{path}: {message}") from None
        raise


def _read(path: Path) -> object:
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


def _parse(text: str, source: str) -> object:
    """YAML → plain values. Interpolation and aliases are refused: a config says what it means, once."""
    if "${" in text:
        raise UserError(f"{source}: found '${{'; allowed: plain values, no interpolation")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{source}: found an alias ('*name'); allowed: plain values")
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except KeyValidationError:
        raise UserError(f"{source}: found a key that is neither a word nor a number; allowed: words") from None
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
    return tree


def _override(tree: object, override: str) -> object:
    """The tree with one `dotted.key=value` set; the value is read as YAML."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(part.isidentifier() for part in parts):
        raise UserError(f"{override!r}: found no key=value; allowed: dotted overrides such as training.epochs=2")
    value = _parse(f"value: {text}", repr(override))
    if set(value) != {"value"}:
        raise UserError(f"{override!r}: found several values; allowed: one")
    tree = json.loads(json.dumps(tree, default=str))
    node = tree
    for part in parts[:-1]:
        if not isinstance(node.setdefault(part, {}), dict):
            raise UserError(f"{override!r}: {key}: found a value at {part}, which has no keys; allowed: {part}=…")
        node = node[part]
    node[parts[-1]] = value["value"]
    return tree


def _describe(error: ValidationError) -> str:
    """The first mistake as `key: found …; allowed: …`."""
    # The pydantic error of an unknown key comes last; it is the likelier cause of the others.
    mistakes = error.errors(include_url=False)
    mistake = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, Mistake):
        return f"{cause.key}: found {_show(cause.found)}; allowed: {cause.allowed}"
    place = _place(mistake["loc"])
    if mistake["type"] == "missing" and isinstance(place[-1], int):
        # Too short a list is told as the list that it is.
        place = place[:-1]
    key = ".".join(map(str, place)) or "the file"
    if mistake["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{key}: unknown key{hint}; allowed: {', '.join(known)}"
    if mistake["type"] == "missing" and isinstance(mistake["loc"][-1], str):
        return f"{key}: found nothing; allowed: this key is required"
    allowed = mistake["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not isinstance(cause, ValueError):
        allowed = WORDS.get(mistake["type"], allowed)
        names = [part for part in place if isinstance(part, str)]
        # What stands under these two is named by the user.
        names = names[:2] if names[:2] in (["analysis", "expected"], ["analysis", "references"]) else names
        allowed = ALLOWED.get(".".join(names), allowed)
    return f"{key}: found {_show(mistake['input'])}; allowed: {_one_line(allowed)}"


def _place(loc: tuple[str | int, ...]) -> list[str | int]:
    """The keys that lead to a mistake, without pydantic's tags of the alternatives that config.py names in <>."""
    tag = {"learning_rates": 1, "seeds": 1, "launch": 2}.get(str(loc[0]) if loc else "")
    return [part for i, part in enumerate(loc) if not (i == tag and str(part).startswith("<"))]


def _keys_at(place: list) -> list[str]:
    """The keys allowed in the block at `place`."""
    blocks = {"training": Training, "launch": Launching, "wandb": Wandb, "analysis": Analysis}
    blocks |= {"learning_rates": LogUniform, "seeds": Factorial}
    if place[:2] == ["analysis", "references"]:
        return list(Reference.model_fields)
    return list((blocks.get(str(place[0])) if place else StudyConfig).model_fields)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
