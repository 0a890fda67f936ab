"""A configuration as others may see it: nothing that is called a key or a token, and no home directory."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECRET = re.compile(r"(api_?key|token|secret|password|credentials?)$", re.IGNORECASE)


def published(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy of ``config``, resolved."""
    return _public(dict(config), str(Path.home()))


def _public(node: Any, home: str) -> Any:
    if isinstance(node, Mapping):
        return {k: "(hidden)" if v and SECRET.search(str(k)) else _public(v, home) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_public(item, home) for item in node]
    return node.replace(home, "~") if isinstance(node, str) and len(home) > 1 else node
