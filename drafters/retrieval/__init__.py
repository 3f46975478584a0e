"""Retrieval of continuations and their choice: native code over all rows of a step."""

from typing import Any

import llvmlite.binding


def _make_llvmlite_scannable() -> None:
    """Let vLLM's CPU start-up, which reads `vars()` of every loaded module's attributes, pass llvmlite.

    llvmlite's library handle answers any name with a function of the library, `__dict__` included; with
    numba imported before the engine starts, vLLM 0.32 mistakes that for an instance dictionary.
    """
    wrapper = type(llvmlite.binding.ffi.lib)
    look_up = wrapper.__getattr__

    def look_up_public(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return look_up(self, name)

    wrapper.__getattr__ = look_up_public


_make_llvmlite_scannable()
