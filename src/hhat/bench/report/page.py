"""Pieces of a self-contained HTML page: everything it needs is inside it, and all text is escaped."""

import html
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from hhat.bench.report.assets import SCRIPT, STYLE


class Html(str):
    """Text that is HTML already."""


def text(words: str) -> str:
    return words if isinstance(words, Html) else html.escape(words)


def page(
    title: str, lead: Iterable[str], contents: str, sections: Iterable[str], foot: str, script: str, look: str
) -> str:
    """The whole document. lead: paragraphs; contents: what `toc` made, or nothing.

    script: the drawing library; look: JSON of what its drawings share.
    """
    first, *more = lead
    head = f'<p class="lead">{text(first)}</p>' + "".join(f'<p class="soft">{text(words)}</p>' for words in more)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # an empty icon, or the browser asks for one
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f'<body>\n<a class="skip" href="#results">Skip to the results</a>\n<div class="page">\n'
        f"<header>\n<h1>{text(title)}</h1>\n{head}\n</header>\n{contents}\n"
        '<noscript><p class="warn">The figures need JavaScript; the tables hold the same numbers.</p></noscript>\n'
        '<main id="results" tabindex="-1">\n'
        + "\n".join(sections)
        + f"\n</main>\n<footer><p>{text(foot)}</p></footer>\n</div>\n"
        f'<script type="application/json" id="look">{look}</script>\n'
        f"<script>{script}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def toc(items: Iterable[tuple[str, str, str]]) -> str:
    """Links to sections. items: (name of the section, its title, what to add)."""
    lines = []
    for name, title, more in items:
        said = f' <span class="soft">{text(more)}</span>' if more else ""
        lines.append(f'<li><a href="#{name}">{text(title)}</a>{said}</li>')
    head = '<nav aria-labelledby="contents">\n<h2 id="contents">Contents</h2>\n'
    return f"{head}<ol>{''.join(lines)}</ol>\n</nav>"


def section(name: str, title: str, lead: str, parts: Iterable[str]) -> str:
    """name: unique on the page; links lead to it."""
    head = f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{text(title)}</h2>\n'
    return f'{head}<p class="soft">{text(lead)}</p>\n' + "\n".join(filter(None, parts)) + "\n</section>"


def paragraph(words: str) -> str:
    return f"<p>{text(words)}</p>"


def hint(words: str) -> str:
    """For the screen only."""
    return f'<p class="soft hint">{text(words)}</p>'


def warning(words: str) -> str:
    return f'<p class="warn"><b>Note:</b> {text(words)}</p>'


def heading(words: str) -> str:
    return f"<h3>{text(words)}</h3>"


def fold(summary: str, parts: Iterable[str]) -> str:
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def figure(name: str, data: str, says: str, caption: str, table: str, broad: bool = False) -> str:
    """A drawing, its caption, and the same as a table. data: JSON for the page's script; says: for a screen reader."""
    kind = ' class="broad"' if broad else ""
    drawing = f'<div class="plot" id="{name}" role="img" aria-label="{text(says)}"></div>'
    data = f'<script type="application/json">{data}</script>'
    inner = f"{drawing}{data}\n<figcaption>{text(caption)}</figcaption>\n{fold('As a table', [table])}"
    return f"<figure{kind}>{inner}</figure>"


def figures(parts: Iterable[str], thirds: bool = False) -> str:
    """Drawings side by side, one below the other on a phone."""
    return f'<div class="figures{" thirds" if thirds else ""}">\n' + "\n".join(parts) + "\n</div>"


def pairs(items: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in items) + "</dl>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str, words: Sequence[int] = (0,)) -> str:
    """A table that scrolls by itself, by keyboard too, where it is wider than the page.

    words: columns that hold text; the rest are numbers, set flush right. The first column names its row
    """
    kind = [("long" if i or len(words) > 1 else "") if i in words else "number" for i in range(len(header))]
    marks = [f' class="{each}"' if each else "" for each in kind]
    head = "".join(f'<th scope="col"{mark}>{text(name)}</th>' for mark, name in zip(marks, header, strict=True))
    body = "\n".join("<tr>" + "".join(_cell(k, value, i) for i, (k, value) in enumerate(zip(kind, row, strict=True)))
                     + "</tr>" for row in rows)  # fmt: skip
    title = f"<caption><span>{text(caption)}</span></caption>"
    inner = f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="Table: {text(caption.split(". ")[0])}">{inner}</div>'
    )


def measured(value: str, interval: str = "", best: bool = False) -> Html:
    """A number with its interval in small print; the best of its column in bold."""
    small = f" <small>{text(interval)}</small>" if interval else ""
    return Html(f"<b>{text(value)}</b>{small}" if best else f"{text(value)}{small}")


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


def _cell(kind: str, value: str, place: int) -> str:
    mark = "" if not kind or (place and kind == "number") else f' class="{kind}"'
    return f"<td{mark}>{text(value)}</td>" if place else f'<th scope="row"{mark}>{text(value)}</th>'
