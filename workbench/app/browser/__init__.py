"""What only the browser can do, as invisible components: reconnect, download, shortcuts."""

from collections.abc import Callable
from typing import Any, ClassVar

import param
from panel.custom import AnyWidgetComponent

from workbench.app.server import RUN_ID

_HIDDEN: dict[str, Any] = {"width": 0, "height": 0, "margin": 0}


class Connection(AnyWidgetComponent):
    """Watches for the server's end; see connection.js."""

    _esm = "connection.js"
    run = param.String(RUN_ID)

    def __init__(self) -> None:
        super().__init__(**_HIDDEN)  # type: ignore[no-untyped-call]


class Downloads(AnyWidgetComponent):
    """Hands files to the browser; see download.js."""

    _esm = "download.js"
    file = param.Dict(default={}, doc="{seq, name, mime}, of the file in `content`.")
    content = param.Bytes(default=b"")

    def __init__(self) -> None:
        super().__init__(**_HIDDEN)  # type: ignore[no-untyped-call]
        self._count = 0

    def offer(self, name: str, content: bytes, mime: str = "application/octet-stream") -> None:
        """Save `content` in the reader's downloads as `name`."""
        self._count += 1
        self.param.update(content=content, file={"seq": self._count, "name": name, "mime": mime})


class Shortcuts(AnyWidgetComponent):
    """Tells which keys were pressed outside of text fields; see shortcuts.js."""

    _esm = "shortcuts.js"
    keys = param.List(default=[], doc='Those that are listened to, for example "1" or "Ctrl+z".')
    pressed = param.Dict(default={}, doc="{seq, key}, by the reader.")
    _priority_changes: ClassVar[list[str]] = ["pressed"]

    def __init__(self, actions: dict[str, Callable[[], object]]) -> None:
        super().__init__(keys=list(actions), **_HIDDEN)  # type: ignore[no-untyped-call]
        self._actions = actions
        self.param.watch(lambda event: self._act(event.new.get("key", "")), "pressed")

    def _act(self, key: str) -> None:
        if key in self._actions:
            self._actions[key]()
