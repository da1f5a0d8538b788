"""YAML of settings, read in one way or refused.

PyYAML takes the last of doubled keys, reads ``010`` as 8 and ``1:30`` as 90, and follows aliases to
any size; whoever writes these means something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from trainer.errors import UserError
from trainer.files.atomic import reading
from trainer.settings.base import is_text

# Nobody writes more by hand, and PyYAML takes seconds for so much.
LARGEST_BYTES = 2**18
MOST_VALUES = 2**16  # once aliases are written out
LONGEST_NUMBER = 100
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Octal, and of base 60, in YAML 1.1; neither in YAML 1.2
AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises UserError when the file is missing, not YAML or not a mapping."""
    with reading(path, "check the path"), path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise UserError(
            f"{path}: larger than {LARGEST_BYTES // 1024} KiB, which no file of settings is; "
            "check the path"
        )
    try:
        values = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; check the path or save it so") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path}: must hold `setting: value` lines")
    return values


def parse_yaml(text: str) -> Any:
    """Raises ValueError, of one line, for what is not YAML, or has more than one reading."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _check(root, {})
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        reason = f"{line}{error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        reason = f"{error.reason} (character {error.position + 1})"
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # whatever stray tags and dates provoke in PyYAML's constructors
        reason = str(error) or type(error).__name__
    raise ValueError(f"{reason}; mend it")


def _check(node: Node, sizes: dict[Node, int | None]) -> int:
    """The number of values below ``node``, aliases written out; those known are in ``sizes``."""
    if node in sizes:
        size = sizes[node]
        if size is None:
            raise _error("it refers to itself", node)
        return size
    sizes[node] = None
    size = 1
    if isinstance(node, ScalarNode):
        if not is_text(node.value):
            raise _error(f"{node.value!r} is no text", node)
        if node.tag in NUMBERS and AMBIGUOUS.fullmatch(node.value):
            raise _error(f"{node.value} is ambiguous, write it as a plain decimal number", node)
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _error(f"a number of {len(node.value)} digits is none of a setting", node)
    else:
        parts = node.value
        if isinstance(node, MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        size += sum(_check(part, sizes) for part in parts)
    if size > MOST_VALUES:
        raise _error("its aliases make too many values of it", node)
    sizes[node] = size
    return size


def _check_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise _error(f"{key.value} is there twice, remove one", key)
            seen.add((key.tag, key.value))


def _error(reason: str, node: Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)
