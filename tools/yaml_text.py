"""YAML that people wrote: a value, or one error in one line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class NotYaml(ValueError):
    """The text is no YAML, or none that may stand in a file of ours."""


class OnceOnlyLoader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one in silence; in a file that decides that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        # The tag `!!map` may stand before anything; what it may not stand before, the loader itself refuses.
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def yaml_of(text: str, loader: type[Any] = OnceOnlyLoader) -> object:
    """The value that a text spells. Raises `NotYaml`."""
    try:
        found: object = yaml.load(text, Loader=loader)
    except yaml.YAMLError as exc:
        raise NotYaml(" ".join(str(exc).split())) from exc
    except RecursionError as exc:
        raise NotYaml("it nests too deeply") from exc
    except (ValueError, TypeError, AttributeError, LookupError) as exc:
        # The loader makes dates and numbers of what looks like some, and Python may not agree.
        raise NotYaml(f"a value is not what it is written as: {exc}") from exc
    return found
