"""The parts of a report's page: text in, HTML out. Every argument is plain text unless it says otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Mark = Literal["line", "faint", "dashed", "circle", "square", "triangle", "diamond"]

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "rule": "#d5dae0",
    "series-1": "#0a58a8",
    "series-2": "#b0420a",
    "series-3": "#17703f",
    "series-4": "#83359b",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e6eaef",
    "muted": "#a0a9b4",
    "rule": "#363d46",
    "series-1": "#6fb4ff",
    "series-2": "#ff9c5b",
    "series-3": "#5fcf98",
    "series-4": "#d69cec",
}

_STYLE = """
:root { color-scheme: light dark; %LIGHT% }
@media screen and (prefers-color-scheme: dark) { :root { %DARK% } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 3rem; background: var(--paper);
       color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .25rem; }
section { margin: 0 0 2.25rem; min-width: 0; }
.charts { display: grid; gap: 0 2.5rem; align-items: start;
          grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; }
figcaption, .caption { color: var(--muted); font-size: .875rem; margin: .25rem 0 .5rem; }
.plot { display: block; width: 100%; height: auto; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
.plot text { font-family: inherit !important; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; padding: 0;
          margin: .25rem 0; font-size: .875rem; }
.legend svg { width: 1.75rem; height: .7rem; margin-right: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.25rem .3rem 0;
         border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
td.number, th.number { text-align: right; }
.scroll td { white-space: nowrap; }
.headline { width: 100%; }
.headline th { width: 34%; font-weight: 400; color: var(--muted); }
.headline td:nth-child(2) { font-weight: 600; }
.headline td:nth-child(3) { color: var(--muted); width: 40%; }
.note { border-left: 4px solid var(--series-2); margin: 0 0 1.25rem; padding: .1rem 0 .1rem .75rem; }
pre { margin: .5rem 0; padding: .75rem 1rem; border: 1px solid var(--rule); border-radius: 6px;
      font: .8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
      white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
figure + details, .caption + details { font-size: .875rem; }
summary { color: var(--muted); }
@media (max-width: 40rem) {
  .headline, .headline tbody, .headline tr, .headline th, .headline td { display: block; width: auto; }
  .headline tr { border-bottom: 1px solid var(--rule); padding: .3rem 0; }
  .headline th, .headline td { border: 0; padding: 0; }
  .headline td:nth-child(3) { width: auto; }
}
@media print {
  html { font-size: 10pt; }
  body { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; }
  .charts section, tr, .headline { break-inside: avoid; }
  .charts details { display: none; }
  details::details-content { display: block; content-visibility: visible; }
}
"""


@dataclass(frozen=True)
class LegendEntry:
    """One line of a plot's legend; `colour` is a name of `LIGHT`."""

    label: str
    colour: str
    mark: Mark = "line"


def page(title: str, body: str) -> str:
    """Return the whole document around a body of HTML. It allows itself neither scripts nor the network."""
    style = _STYLE.replace("%LIGHT%", _variables(LIGHT)).replace("%DARK%", _variables(DARK))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def section(heading: str, content: str) -> str:
    """Return a section; `content` is HTML."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>\n"


def paragraph(text: str, kind: Literal["caption", "note"]) -> str:
    """Return a paragraph of small print or a marked one."""
    return f'<p class="{kind}">{escape(text)}</p>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of figures: the first column to the left, the others to the right."""
    head = "".join(_cell("th", text, column) for column, text in enumerate(header))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, column) for column, text in enumerate(row))}</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
    )


def headline(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return the table of (what, value, remark)."""
    body = "".join(f'<tr><th scope="row">{escape(row[0])}</th>{_fact(*row[1:])}</tr>\n' for row in rows)
    return f'<table class="headline"><tbody>\n{body}</tbody></table>'


def figure(svg: str, legend: Sequence[LegendEntry], caption: str) -> str:
    """Return a plot with its legend and caption; `svg` is an SVG element."""
    entries = "".join(f"<li>{_legend_mark(entry)}{escape(entry.label)}</li>" for entry in legend)
    key = f'<ul class="legend">{entries}</ul>\n' if legend else ""
    return f"<figure>\n{key}{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def collapsed(summary: str, content: str) -> str:
    """Return a block that opens at a click; `content` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def preformatted(text: str) -> str:
    """Return a monospace block that wraps."""
    return f"<pre>{escape(text)}</pre>"


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def _cell(tag: str, text: str, column: int) -> str:
    number = ' class="number"' if column else ""
    return f"<{tag}{number}>{escape(text)}</{tag}>"


def _fact(value: str, remark: str) -> str:
    if not remark:
        return f'<td colspan="2">{escape(value)}</td>'
    return f"<td>{escape(value)}</td><td>{escape(remark)}</td>"


_LINES = {
    "line": 'stroke-width="2.5"',
    "faint": 'stroke-width="1.5" opacity="0.45"',
    "dashed": 'stroke-width="2.5" stroke-dasharray="5 3"',
}
_SHAPES = {
    "circle": "M10 5a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "square": "M10.5 1.5h7v7h-7z",
    "triangle": "M14 1l4.5 8h-9z",
    "diamond": "M14 0l5 5l-5 5l-5 -5z",
}


def _legend_mark(entry: LegendEntry) -> str:
    colour = f"var(--{entry.colour})"
    if entry.mark in _SHAPES:
        mark = f'<path d="{_SHAPES[entry.mark]}" fill="{colour}"/>'
    else:
        mark = f'<path d="M0 5h28" stroke="{colour}" {_LINES[entry.mark]}/>'
    return f'<svg viewBox="0 0 28 10" aria-hidden="true">{mark}</svg>'
