"""The frame of every served page, and its clock."""

from collections.abc import Callable
from typing import Any

import panel as pn
from panel.io.callbacks import PeriodicCallback
from panel.util.parameters import edit_readonly
from panel_material_ui.template.base import Page

from workbench.app.theme import theme_config


def page_frame(**parts: Any) -> Any:  # noqa: ANN401 - a Panel template and its parts
    """A page with our colours, apart from all other pages of the process.

    Panel ties each page to one busy flag of the process, so that any page's work is sent to all
    of them; and the flag would keep pages in memory that were closed long ago.
    """
    page = Page(theme_config=theme_config(), busy_indicator=None, **parts)
    for _, watcher in page._param__private.ref_watchers:
        if watcher.inst is pn.state:
            pn.state.param.unwatch(watcher)
    with edit_readonly(page):
        page.busy = False
    return page


def every(milliseconds: int, act: Callable[[], object]) -> None:
    """Call `act` again and again while the page that is being built is open, without a word."""
    # In the background: otherwise every call is announced as work to the browser.
    PeriodicCallback(callback=act, period=milliseconds, background=True).start()
