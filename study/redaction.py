"""Keeps keys and tokens out of everything a study writes or prints."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
"""Names of environment variables whose values are secrets, unless they are too short to be one."""

SHORTEST = 8

SECRET_SHAPE = re.compile(
    r"\b(?:[0-9a-f]{40,}|wandb_v\d+_\w{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|eyJ[\w-]{10,}\.[\w.-]{10,})\b"
)
"""What W&B, AWS, GitHub and JSON web tokens look like."""

# A password may hold slashes; a port is no password.
USER = r"(?<=://)[^/\s:@]+:(?!\d+/)[^\s@]+(?=@)|(?<=s3://)[^/\s@]+(?=@)"
QUERY = r"(?<=[?&])(?i:[\w-]*(?:key|token|secret|sig|signature|password|credential)(?:_?id)?)=[^&\s'\"]+"
IN_ADDRESS = re.compile(f"{USER}|{QUERY}")
"""User and password, or a key in the query, of a URI."""

ALLOWED = "a URI without credentials, which the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or ~/.aws holds"


def mask(text: str) -> str:
    """`text` without secrets: values of this process's secret variables, and all that looks like a key or token."""
    values = {v for k, v in os.environ.items() if SECRET_NAME.search(k) and len(v) >= SHORTEST}
    # The longest first: one secret may be the beginning of another.
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return SECRET_SHAPE.sub("***", IN_ADDRESS.sub("***", text))


def in_address(address: str) -> bool:
    """Whether a URI holds credentials, which would be written wherever the URI is."""
    return IN_ADDRESS.search(address) is not None
