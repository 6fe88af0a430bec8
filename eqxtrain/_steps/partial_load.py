"""A learner without a state into which the file of one with a state was loaded.

Plain Equinox reads leaves in the order of the fields, and ignores what is left in the file. So the
fields before `state` are loaded correctly, among them `is_initialised`, which is then true although
there is no state.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax

from .._warn import warn


def report_partial_load(learner: Any, *, starts: bool) -> None:
    """Say what loading without a state has left behind, or read wrongly.

    **Arguments:**

    - `starts`: whether a state is made to train with, or only to look at the model.

    **Raises:** `ValueError` where fields behind `state` were read from leaves that are not theirs.
    """
    if learner.state is not None or not getattr(learner, "is_initialised", False):
        return
    who = type(learner).__name__
    like = f"`eqx.tree_deserialise_leaves(path, {who}(...).init())`"
    if wrong := _behind_state(learner):
        listed = ", ".join(f"`{name}`" for name in wrong)
        raise ValueError(
            f"A file of an initialised `{who}` was loaded into one without a state, so the "
            f"fields after `state` were read from the optimizer's leaves: {listed}. Load it into "
            f"an initialised one, {like}."
        )
    if starts:
        warn(
            f"A file of an initialised `{who}` was loaded into one without a state: the model is "
            "that of the file, but the optimizer's state, the key and the step were not loaded and "
            f"start afresh. To go on where it stopped, load into an initialised one, {like}; to "
            "start afresh without this warning, `learner.replace(state=None)`."
        )


def _behind_state(learner: Any) -> list[str]:
    """The fields behind `state` with leaves that a file holds."""
    fields = [f for f in dataclasses.fields(learner) if not f.metadata.get("static", False)]
    names = [f.name for f in fields]
    behind = names[names.index("state") + 1 :]

    def is_saved(name: str) -> bool:
        return any(map(eqx.is_array_like, jax.tree.leaves(getattr(learner, name))))

    return [name for name in behind if is_saved(name)]
