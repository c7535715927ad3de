"""Which scope each route wants.

What stands in no table has a safe default: who reads is a viewer, who deletes or deals with keys an
admin, and everybody else an operator.
"""

from collections.abc import Mapping

from starlette.routing import compile_path

from safelight.access.keys import Scope

PUBLIC: frozenset[tuple[str, str]] = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/signin"),
        ("POST", "/signin"),
        ("GET", "/signin/oidc"),
        ("GET", "/signin/oidc/callback"),
        ("POST", "/signout"),
    }
)
"""Answered to everybody."""
PUBLIC_FOLDERS: tuple[str, ...] = ()
"""Where the paths begin of files that the page of the sign-in needs."""
WANTED: Mapping[tuple[str, str], Scope] = {
    ("POST", "/sdapi/v1/png-info"): Scope.VIEWER,
    ("GET", "/api/keys"): Scope.ADMIN,
    ("POST", "/api/keys"): Scope.ADMIN,
    ("DELETE", "/api/keys/{key_id}"): Scope.ADMIN,
    ("GET", "/api/audit"): Scope.ADMIN,
    ("GET", "/api/audit/verify"): Scope.ADMIN,
}
"""Routes whose scope is another than the default."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})
ADMINS = ("/api/keys", "/api/audit")
"""Where the paths begin that are for admins, whatever stands behind."""
_PATTERNS = [(method, compile_path(path)[0], scope) for (method, path), scope in WANTED.items()]


def wanted_scope(method: str, path: str) -> Scope | None:
    """What a request needs; None where everybody may ask.

    Args:
        method: of the request.
        path: as the router sees it, decoded.
    """
    reads = "GET" if method == "HEAD" else method
    if (reads, path) in PUBLIC:
        return None
    if reads == "GET" and PUBLIC_FOLDERS and path.startswith(PUBLIC_FOLDERS) and ".." not in path:
        return None
    for known, pattern, scope in _PATTERNS:
        if known == reads and pattern.match(path):
            return scope
    if method == "DELETE" or path.startswith(ADMINS):
        return Scope.ADMIN
    return Scope.VIEWER if method in READS else Scope.OPERATOR
