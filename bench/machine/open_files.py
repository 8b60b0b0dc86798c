"""The limit on the files that one process may have open."""

import resource

_PLENTY = 65_536


def raise_limit() -> int:
    """Raise this process's limit on open files as far as it may, for its children too, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return soft
