"""A served model as a table of tasks, each from a request to what goes out as JSON. HTTP is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic

from reformer.serving.requests import AnyRequest, Request, read_request

Content = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a task says, and how many tokens it has read and written."""

    content: Content
    num_tokens: int


@dataclass(frozen=True)
class Task(Generic[AnyRequest]):
    """Something that a model does.

    Attributes:
        does: what, in a few words.
        request: what it takes.
        answer: does it; raises UserError where the model cannot take what it is given.
    """

    does: str
    request: type[AnyRequest]
    answer: Callable[[AnyRequest], Answer]


@dataclass(frozen=True)
class Service:
    """A loaded model and what it does.

    Attributes:
        kind: what the model is, in a few words.
        model: the network, in evaluation mode.
        tasks: by their names.
        max_length: tokens of the longest sequence.
        about: what else there is to say of the model, as JSON.
    """

    kind: str
    model: Any
    tasks: Mapping[str, Task[Any]]
    max_length: int
    about: Mapping[str, Any]

    def describe(self) -> Content:
        """What the model is, what it does and takes, and its limits."""
        return {
            "kind": self.kind,
            **self.about,
            "architecture": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "device": self.model.device.type,
            "version": version("reformer-torch"),
            "max_length": self.max_length,
            "tasks": {
                name: {"does": task.does, "request": task.request.model_json_schema()}
                for name, task in self.tasks.items()
            },
        }

    def read(self, name: str, body: bytes) -> Request:
        """Reads the body of a request for a task; UserError where it is not one."""
        request: Request = read_request(self.tasks[name].request, body)
        return request

    def answer(self, name: str, request: Request) -> Answer:
        """Does a task; UserError where the model cannot take what it is given."""
        return self.tasks[name].answer(request)
