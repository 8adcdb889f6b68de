"""The base of everything in findings.json, and its JSON schema.

python -m analysis.schema > analysis/findings.schema.json writes it anew.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A part of the findings: fixed once made, known keys only, never NaN, every key described by its docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def text() -> str:
    """The JSON schema of findings.json."""
    from analysis.findings import Findings  # which is made of this module's class

    return json.dumps(Findings.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
