"""Libraries that are not required: imported where they are used."""

import importlib
from typing import Any


def optional(module: str, extra: str, who: str) -> Any:
    """Import a library, or say how to get it.

    **Arguments:**

    - `module`: what to import.
    - `extra`: the extra of this package that installs it.
    - `who`: what needs it, for the error.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`{who}` needs {module.partition('.')[0]}: `pip install 'eqxtrain[{extra}]'`."
        ) from error
