"""`Monoid`: something with an associative `merge` and an identity, `reset()`."""

from typing import Any

import equinox as eqx
import jax

from .._types import Self


class Monoid(eqx.Module):
    """A module that merges with others of its class, by default part by part.

    The parts are the monoids among its fields. Its other fields are configuration, and must be
    equal in modules that are merged.
    """

    def merge(self, other: Any) -> Self:
        """Everything that `self` and then `other` have seen. This is associative."""
        self._check_has_parts("merge")
        structures = [
            jax.tree.structure(node, is_leaf=node._is_part)
            for node in (self, other)
            if type(node) is type(self)
        ]
        if len(structures) < 2 or structures[0] != structures[1]:
            raise TypeError(
                f"`{type(self).__name__}` can't be merged with `{type(other).__name__}`: both must "
                "have the same class and the same options."
            )
        return jax.tree.map(
            lambda mine, theirs: mine.merge(theirs) if isinstance(mine, Monoid) else theirs,
            self,
            other,
            is_leaf=self._is_part,
        )

    def reset(self) -> Self:
        """A copy that has seen nothing: the identity of `merge`."""
        self._check_has_parts("reset")
        return jax.tree.map(
            lambda part: part.reset() if isinstance(part, Monoid) else part,
            self,
            is_leaf=self._is_part,
        )

    def _is_part(self, node: Any) -> bool:
        return isinstance(node, Monoid) and node is not self

    def _check_has_parts(self, operation: str) -> None:
        if not any(map(self._is_part, jax.tree.leaves(self, is_leaf=self._is_part))):
            name = type(self).__name__
            raise NotImplementedError(
                f"`{name}` has no accumulators among its fields, so `{operation}` has nothing to "
                f"work on: accumulate in modes (`total: Sum`), or define `{name}.merge` and "
                f"`{name}.reset`."
            )
