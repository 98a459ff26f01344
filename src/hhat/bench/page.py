"""Pieces of a self-contained HTML page: everything it needs is inside it, and all text is escaped."""

import html
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --ground: #f5f7f8; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--ground); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.35rem; margin: 0 0 .2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p { margin: .3rem 0 .7rem; max-width: 75ch; } .soft { color: var(--soft); font-size: .9rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
section { padding: 1.1rem 1.2rem; margin-top: 1.2rem; }
blockquote { margin: .6rem 0; padding: .2rem .9rem; border-left: 4px solid var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .3rem; }
th, td { padding: .3rem .9rem .3rem .2rem; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 14rem; }
td small { color: var(--soft); } td.best { font-weight: 650; }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem 1.2rem; }
.thirds { grid-template-columns: repeat(3, minmax(0, 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .88rem; color: var(--soft); }
details { margin-top: .9rem; } summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 760px) {
  .figures, .thirds { grid-template-columns: minmax(0, 1fr); }
  main { padding: .8rem .5rem 2rem; } section { padding: .8rem .7rem; }
  dl { grid-template-columns: minmax(0, 1fr); } dt { margin-top: .3rem; }
}
@media print { body { background: #fff; } section { border: 0; padding: 0; } figure, tr { break-inside: avoid; } }
"""


class Cell(str):
    """Text of a table cell that is HTML already."""


def text(words: str) -> str:
    return html.escape(words)


def page(title: str, lead: str, sections: Iterable[str], script: str) -> str:
    """The whole document. script: the source of the drawing library, put in once."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # an empty icon, or the browser asks for one
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n<script>{script}</script>\n</head>\n"
        f'<body>\n<main>\n<h1>{text(title)}</h1>\n<p class="soft">{text(lead)}</p>\n'
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, lead: str, parts: Iterable[str]) -> str:
    return f'<section>\n<h2>{text(title)}</h2>\n<p class="soft">{text(lead)}</p>\n' + "\n".join(parts) + "\n</section>"


def paragraph(words: str) -> str:
    return f"<p>{text(words)}</p>"


def quote(words: str) -> str:
    return f"<blockquote>{text(words)}</blockquote>"


def heading(words: str) -> str:
    return f"<h3>{text(words)}</h3>"


def fold(summary: str, parts: Iterable[str]) -> str:
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def figures(parts: Iterable[tuple[str, str]], thirds: bool = False) -> str:
    """Drawings side by side, one below the other on a phone. parts: (drawing as HTML, caption)."""
    style = "figures thirds" if thirds else "figures"
    inner = "\n".join(f"<figure>{drawing}<figcaption>{text(words)}</figcaption></figure>" for drawing, words in parts)
    return f'<div class="{style}">\n{inner}\n</div>'


def pairs(items: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in items) + "</dl>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", words: Sequence[int] = (0,)) -> str:
    """A table that scrolls by itself where it is wider than the page.

    words: columns that hold text (the first a name, others may be long); the rest are numbers, set flush right
    """
    kind = [("long" if i else "text") if i in words else "number" for i in range(len(header))]
    head = "".join(f'<th scope="col" class="{k}">{text(name)}</th>' for k, name in zip(kind, header, strict=True))
    body = "\n".join(
        "<tr>" + "".join(_cell(k, value) for k, value in zip(kind, row, strict=True)) + "</tr>" for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def measured(value: str, interval: str = "", best: bool = False) -> Cell:
    """A number with its interval in small print; the best of its column in bold."""
    small = f" <small>{text(interval)}</small>" if interval else ""
    return Cell(f"<b>{text(value)}</b>{small}" if best else f"{text(value)}{small}")


def write(out_html: Path | str, document: str) -> None:
    """Write the page whole or not at all; ValueError where the folder does not take it."""
    target = Path(out_html)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(document)
            Path(name).chmod(0o644)
            os.replace(name, target)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as trouble:
        raise ValueError(f"{out_html}: cannot write the report here: {trouble.strerror}") from trouble


def _cell(kind: str, value: str) -> str:
    inner = value if isinstance(value, Cell) else text(value)
    return f'<td class="{kind}">{inner}</td>'
