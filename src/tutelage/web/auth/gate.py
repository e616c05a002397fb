"""Puts accounts into a site: forms, the guard before everything, who is asked, what is told."""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from tutelage.core.config_web import is_loopback
from tutelage.web.auth import forms, headers
from tutelage.web.auth.guard import Guard
from tutelage.web.auth.sessions import Gate
from tutelage.web.view import Site
from tutelage.workflows.people import accounts_links


def protect(served: FastAPI, site: Site) -> None:
    """Let only those into `site` who may come in. The first admin's link is told in its notes."""
    gate = Gate(site)
    site.who, site.write, site.accounts = gate.who, gate.write, gate.web.accounts
    served.router.routes[:0] = forms.routes(gate)
    served.add_middleware(Guard, gate=gate)
    headers.mark_scripts()
    if gate.web.accounts:
        ui.add_head_html('<script src="/auth/alive.js" defer></script>', shared=True)
    link = accounts_links.first_link(gate.store, gate.web)
    if link is not None:
        site.notes.append(f"Make the first admin (works once, within a day): {link}")
    elif not gate.web.accounts and not is_loopback(site.host):
        site.notes.append("web.auth is off: whoever reaches this address may do everything")
