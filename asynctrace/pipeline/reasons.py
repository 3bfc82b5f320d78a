"""Reasons: what a sink says of its failures, made text without secrets once, before anything of ours keeps it.

The text of a driver's error may hold the URL with the password, or the line that was refused; it ends in dead letters,
ledgers, receipts and the log.
"""

from __future__ import annotations

from traceback import format_exception

from asynctrace.core.codec import text_of_any
from asynctrace.core.text import class_name
from asynctrace.pipeline.diagnostics import redactor


def in_words(said: object) -> str:
    """What was said, usually a text or an error, without secrets; raises nothing.

    >>> in_words(ValueError("no answer from redis://:hunter2@cache/0"))
    'no answer from redis://:[redacted: connection string]@cache/0'
    """
    return redactor.redact_text(text_of_any(said)[0])


def with_class(error: BaseException) -> str:
    """The same with the error's class in front.

    >>> with_class(TimeoutError()), with_class(ValueError("password=hunter2"))
    ('TimeoutError', 'ValueError: password=[redacted: password]')
    """
    words = in_words(error)
    return f"{class_name(error)}: {words}" if words else class_name(error)


def with_stack(error: BaseException) -> str:
    """The error as the interpreter would print it, without secrets; raises nothing.

    >>> with_stack(ValueError("password=hunter2"))
    'ValueError: password=[redacted: password]\\n'
    """
    try:
        stack = "".join(format_exception(error))
    except Exception:  # notes or causes of the driver's own
        stack = with_class(error)
    return redactor.redact_text(stack, is_stack=True)
