"""Prompts: what is asked of the model about each user and item.

`render_prompts` is the only entry; the modules below it each do one thing: `cleaning` makes raw text
safe to show, `template` renders the user message, `chat` wraps it in the model's chat format and
tokenizes it, `histories` cuts the interactions into users, `fitting` shortens what is too long.
"""

from pipeline.prompts.render import RenderedPrompts, render_prompts

__all__ = ["RenderedPrompts", "render_prompts"]
