"""A real kernel, and the notebook that would be saved of what it sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helpers import library

_TIMEOUT = 120  # seconds; what waits for the kernel longer than this has failed


class Notebook:
    """Runs cells in a kernel, and keeps their outputs as a notebook's file does.

    **Attributes:**

    - `messages`: the kinds of all messages with output, in order.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.messages: list[str] = []

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; returns the outputs that are saved with it."""
        self.messages.clear()
        outputs: list[dict[str, Any]] = []
        displays: dict[str, list[dict[str, Any]]] = {}
        sent = self._client.execute(code)
        while True:
            message = self._client.get_iopub_msg(timeout=_TIMEOUT)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != sent:
                assert kind == "status", f"{kind} belongs to no cell: {content}"
            elif kind == "status" and content["execution_state"] == "idle":
                return outputs
            elif kind not in ("status", "execute_input"):
                self.messages.append(kind)
                name = content.get("transient", {}).get("display_id")
                if kind == "update_display_data":
                    for output in displays[name]:
                        output.update(content)
                elif kind == "clear_output":
                    outputs.clear()
                else:
                    outputs.append({"output_type": kind, **content})
                    displays.setdefault(name, []).append(outputs[-1])


@contextmanager
def notebook() -> Iterator[Notebook]:
    """A notebook with a kernel of its own, in a process that ends with it."""
    manager: Any = library("jupyter_client").KernelManager()
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=_TIMEOUT)
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
