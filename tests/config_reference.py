"""configs/README.md's tables, made of the schema: python -m tests.config_reference writes them anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import get_args

from pydantic.fields import FieldInfo

from study.config import (
    OF_OPTIMIZER,
    OF_SCHEDULE,
    Analysis,
    Block,
    Factorial,
    Images,
    Launching,
    LogUniform,
    Model,
    Reference,
    StudyConfig,
    Training,
    Wandb,
)
from study.config_file import allowed

README = Path(__file__).parents[1] / "configs" / "README.md"
BEGIN, END = "<!-- made of the schema: python -m tests.config_reference -->", "<!-- end -->"
BLOCKS: dict[str, tuple[type[Block], str]] = {
    "": (StudyConfig, "The file"),
    "dataset": (Images, "`dataset`, where a name is not all"),
    "models.N": (Model, "An item of `models`, where a name is not all"),
    "learning_rates": (LogUniform, "`learning_rates` by random search"),
    "seeds": (Factorial, "`seeds` of a variance study"),
    "training": (Training, "`training`"),
    "launch": (Launching, "`launch`"),
    "wandb": (Wandb, "`wandb`"),
    "analysis": (Analysis, "`analysis`"),
    "analysis.references.MODEL.N": (Reference, "An item of `analysis.references`"),
}
"""Where a block stands → the block, and its heading."""


def default(name: str, field: FieldInfo) -> str:
    """A field's default as YAML writes it."""
    if field.is_required():
        return "required"
    if name in OF_OPTIMIZER or name in OF_SCHEDULE or field.default is None:
        return "null"
    if isinstance(field.default, Block):
        return "see below"
    return json.dumps(field.default)


def tables() -> Iterator[str]:
    """A heading, the block's own words and a table of its keys, for each block."""
    for place, (block, heading) in BLOCKS.items():
        prefix = f"{place}." if place else ""
        yield f"## {heading}\n\n{' '.join((block.__doc__ or '').split())}\n"
        yield "| key | allowed | default | meaning |\n|---|---|---|---|"
        for name, field in block.model_fields.items():
            meaning = " ".join((field.description or "").split())
            words = allowed(field)
            if NoneType in get_args(field.annotation) and not words.endswith("null"):
                words += ", or null"
            cells = (f"`{prefix}{name}`", words, f"`{default(name, field)}`", meaning)
            yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
        yield ""


def readme(text: str) -> str:
    """configs/README.md with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}\n", *tables(), f"{END}{after}"])


if __name__ == "__main__":
    README.write_text(readme(README.read_text()))
