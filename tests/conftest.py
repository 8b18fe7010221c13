"""Before any test: what the shell that started them must not change."""

from __future__ import annotations

import signal

# A shell starts what it puts into the background with SIGINT ignored, which programs
# inherit. The tests interrupt programs as a user at a terminal does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
