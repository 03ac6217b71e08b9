"""The command line. Only the module of the command that was called is imported.

Exit status: 0 done, 1 the work failed, 2 bad usage; both with one line on standard error.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from engines.base import LeukostreamError, UsageError
from streamer.commands.output import remark
from streamer.commands.table import COMMANDS, Command, module_of, parser_of

__all__ = ["COMMANDS", "main", "parse"]


def parse(words: Sequence[str]) -> tuple[Command, Any]:
    """The command that was called, and its Options. UsageError for what can't be meant; --help ends the program."""
    called = next((word for word in words if word in COMMANDS), None)
    modules = {} if called is None else {called: module_of(called)}
    options = vars(parser_of(modules).parse_args(words))
    assert called is not None, "argparse takes no words without a command"
    return modules[called], modules[called].Options(**options)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        command, options = parse(sys.argv[1:] if arguments is None else arguments)
        status = command.main(options)
        sys.stdout.flush()
        return status
    except LeukostreamError as error:
        remark(str(error))
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has closed it (`| head`)
        _drop_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        remark("got a full disk, expected room for the output; free some, or write elsewhere")
        return 1


def _drop_output() -> None:
    """Keep the interpreter from failing once more, at exit, to write what standard output still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
