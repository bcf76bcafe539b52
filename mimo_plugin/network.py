"""Whether a host answers: libraries that download try for minutes before they say that it does not."""

from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit

_CONNECT_SECONDS = 5


def reachable(urls: Sequence[str]) -> bool:
    """Whether any of the URLs' hosts answers; each host is asked once a process."""
    return any(_answers(urlsplit(url)._replace(path="/", query="", fragment="").geturl()) for url in urls)


@cache
def _answers(url: str) -> bool:
    import requests

    try:
        # Any answer will do, so no redirect is followed; proxies of the environment are used.
        requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=False).close()
    except (OSError, RuntimeError):  # RuntimeError: sandboxes that forbid sockets
        return False
    return True
