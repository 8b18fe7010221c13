"""What the programs on the hosts of a cluster share: requests by lines of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any


def serve(program: Any) -> None:
    """Says "ready", then calls the method that each line names, until there are none.

    A request is an array of a name and arguments; an answer is what the method returns.
    """
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(program, name)(*arguments)), flush=True)
