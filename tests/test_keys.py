"""Random streams: keys apart from each other, from the state alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxtrain._keys import Stream, key_data, step_key


def draws(key: Any) -> tuple[int, ...]:
    return tuple(np.asarray(jr.key_data(key)).tolist())


@pytest.mark.usefixtures("unchecked")
def test_key_data_refuses_what_its_words_cannot_tell() -> None:
    with pytest.raises(ValueError, match=r"`key` has data of shape \(4,\).*jax_default_prng_impl"):
        key_data(jr.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"shape \(3, 2\).*give one key"):
        key_data(jr.split(jr.key(0), 3))


@pytest.mark.slow
def test_streams_steps_and_batches_have_keys_of_their_own_apart_from_split() -> None:
    root = jr.key(0)
    ours = [
        draws(step_key(key_data(root), stream, step, index))
        for stream in Stream
        for step in range(4)
        for index in (None, 0, 1, 2)
    ]
    theirs = [draws(key) for n in (2, 3, 64) for key in jr.split(root, n)]
    theirs += [draws(jr.fold_in(root, i)) for i in range(64)]
    assert len(set(ours)) == len(ours) and not set(ours) & set(theirs)


def test_a_step_key_is_a_function_of_its_arguments_traced_or_not(
    getkey: Callable[[], jax.Array],
) -> None:
    key = key_data(getkey())
    eager = step_key(key, Stream.TRAIN, 5, 2)
    traced = jax.jit(lambda step, index: step_key(key, Stream.TRAIN, step, index))(5, 2)
    assert draws(eager) == draws(traced)
    assert draws(eager) == draws(step_key(np.asarray(key), Stream.TRAIN, jnp.int32(5), 2))
    assert draws(eager) != draws(step_key(key_data(getkey()), Stream.TRAIN, 5, 2))


@pytest.mark.slow
def test_the_stored_key_and_its_first_draws_differ_from_those_a_model_is_built_from() -> None:
    root = jr.key(0)
    stored = key_data(jr.fold_in(root, int(Stream.STATE)))
    split = {draws(key) for key in jr.split(root, 100)}
    assert draws(stored) not in split
    assert not {draws(step_key(stored, stream, 0)) for stream in Stream} & split
