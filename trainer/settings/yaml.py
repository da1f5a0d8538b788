"""Read YAML of settings, and refuse what has more than one reading.

PyYAML takes the last of duplicate keys, reads ``010`` as 8 and ``1:30`` as 90, and expands aliases
to any size.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from trainer.errors import UserError
from trainer.files.atomic import reading
from trainer.settings.base import NOT_TEXT, is_text

# Nobody writes more by hand, and PyYAML already takes seconds for this much.
LARGEST_BYTES = 2**18
MOST_VALUES = 2**16  # once aliases are expanded
LONGEST_NUMBER = 100
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Octal or base 60 in YAML 1.1, neither in YAML 1.2
AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises UserError if the file is missing, not YAML or not a mapping."""
    with reading(path, "check the path"), path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise UserError(
            f"{path}: larger than {LARGEST_BYTES // 1024} KiB, too large for a settings file; "
            "check the path"
        )
    try:
        values = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; check the path or save it as UTF-8") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid YAML: {error}; fix the file") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path}: must hold `setting: value` lines")
    return values


def parse_yaml(text: str) -> Any:
    """Parse YAML; raises ValueError, of one line, if invalid or ambiguous."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count_values(root, {})
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        reason = f"{line}{error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        reason = f"{error.reason} (character {error.position + 1})"
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # from PyYAML's constructors, for bad tags and dates
        reason = str(error) or type(error).__name__
    raise ValueError(reason)


def _count_values(node: Node, sizes: dict[Node, int | None]) -> int:
    """Count the values below ``node``, aliases expanded; ``sizes`` caches counts, None: open.

    Raises MarkedYAMLError for duplicate keys, ambiguous numbers and too many values.
    """
    if node in sizes:
        size = sizes[node]
        if size is None:
            raise _error("it refers to itself", node)
        return size
    sizes[node] = None
    size = 1
    if isinstance(node, ScalarNode):
        if not is_text(node.value):
            raise _error(f"{node.value!r} {NOT_TEXT}", node)
        if node.tag in NUMBERS and AMBIGUOUS.fullmatch(node.value):
            raise _error(f"{node.value} is ambiguous, write a plain decimal number", node)
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _error(f"a number of {len(node.value)} digits is too long for a setting", node)
    else:
        parts = node.value
        if isinstance(node, MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        size += sum(_count_values(part, sizes) for part in parts)
    if size > MOST_VALUES:
        raise _error("its aliases expand to too many values", node)
    sizes[node] = size
    return size


def _check_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise _error(f"{key.value} appears twice", key)
            seen.add((key.tag, key.value))


def _error(reason: str, node: Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)
