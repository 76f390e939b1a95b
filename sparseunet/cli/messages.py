"""What the library logs, as a person on the command line sees it."""

import logging
import sys

_LEVELS = {"quiet": logging.WARNING, "normal": logging.INFO, "verbose": logging.DEBUG}


class _ToStreams(logging.Handler):
    """Results go to standard output as they are; warnings to standard error, named as such."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            sys.stderr.write(f"{record.levelname.lower()}: {text}\n")
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def show_messages(*, is_quiet: bool, is_verbose: bool) -> None:
    """Show what `sparseunet` logs: warnings only, results too, or everything.

    Called again it changes how much is shown.
    """
    logger = logging.getLogger("sparseunet")
    for handler in [each for each in logger.handlers if isinstance(each, _ToStreams)]:
        logger.removeHandler(handler)
    logger.addHandler(_ToStreams())
    level = "quiet" if is_quiet else "verbose" if is_verbose else "normal"
    logger.setLevel(_LEVELS[level])
