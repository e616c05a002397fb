"""The page's Content-Security-Policy: what a browser may run and load. It holds no markup.

The page's own style sheet and script are named by their SHA-256, so that text which slipped through
the escaping could neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib


def content_security_policy(style: str, script: str = "") -> str:
    """Return the policy of a page with this one <style> and, if given, this one <script>.

    Style *attributes* are allowed: charts place their marks with them, and they can load nothing
    (https://www.w3.org/TR/CSP3/, style-src-attr). A script gets no way to make markup from text
    (https://www.w3.org/TR/trusted-types/).
    """
    rules = [
        "default-src 'none'",
        f"style-src {source_hash(style)}",
        "style-src-attr 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script:
        rules += [f"script-src {source_hash(script)}", "require-trusted-types-for 'script'"]
    return "; ".join(rules)


def source_hash(text: str) -> str:
    """Return a policy's name for an inline text: 'sha256-…', quotes included."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
