"""`reformer serve`."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder, of any command's.")
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in, all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any free one.")] = 8000,
    max_length: Annotated[
        int, typer.Option(min=1, help="Tokens of the longest sequence, which is read in one pass.")
    ] = 1 << 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Answer requests over HTTP with JSON, until Ctrl-C.

    What there is depends on the model: POST /score, /generate and /embed of language models, /predict and
    /embed of models of genes, labels, tracks and the structure of proteins. GET / says it, with what each
    takes. One request at a time is worked on, and others wait; one line on standard error tells of each.
    There is no password and no encryption.
    """
    from reformer.serving.server import ModelServer, stopped_by_signals

    server = ModelServer(host, port)
    try:
        from reformer.serving.loading import load_service

        service = load_service(model, device, max_length)
        server.listen(service)
    except BaseException:
        server.server_close()
        raise
    with stopped_by_signals(server):
        print(f"{server.url}  {service.kind}: {', '.join(f'/{task}' for task in service.tasks)}", flush=True)
        server.run()
