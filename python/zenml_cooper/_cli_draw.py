"""Contexts on a terminal: a tree with bars, or plain lines where nobody looks."""

import os
import shutil
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from zenml_cooper._contexts import Node, Report, Why
from zenml_cooper._text import count, entries, sanitize, size

# A directory or file below this share of the context is not worth a line.
_LEAST_SHARE = 0.01
_BAR = 18
# How many entries of one directory are shown.
_SIBLINGS = 8
# How many patterns are listed; JSON has all.
_PATTERNS = 50
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Look:
    """What the reader of a stream can see: colours, bars, so many columns."""

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.terminal and not os.environ.get("NO_COLOR")
        self.unicode = self.terminal and (stream.encoding or "").lower().replace("-", "") == "utf8"
        self.width = max(shutil.get_terminal_size().columns, 40) if self.terminal else None

    def paint(self, text: str, code: str) -> str:
        """The text in a colour (a number of the ANSI standard), if there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text

    def bar(self, share: float) -> str:
        """A bar of a fixed width."""
        if not self.unicode:
            return f"{'#' * round(share * _BAR):<{_BAR}}"
        eighths = max(round(share * _BAR * 8), 1)
        return f"{'█' * (eighths // 8)}{_EIGHTHS[eighths % 8].strip()}".ljust(_BAR)

    def cut(self, text: str, room: int) -> str:
        """The text in at most so many columns of a terminal."""
        if self.width is None or columns(text) <= room:
            return text
        mark = "…" if self.unicode else "~"
        while text and columns(text) > room - 1:
            text = text[:-1]
        return text + mark


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(ch) else 2 if unicodedata.east_asian_width(ch) in "WF" else 1 for ch in text)


def report_lines(report: Report, look: Look, depth: int) -> Iterator[str]:
    """A report for people: totals, the tree, the patterns."""
    yield look.paint(_totals(report), "1")
    if report["summary"]["bytes"]:
        yield ""
        yield from _tree(report, look, depth)
    if report["patterns"]:
        yield ""
        yield from _patterns(report, look)


def _totals(report: Report) -> str:
    summary = report["summary"]
    extra = f", {count(summary['extra_files'], 'file')} from memory" if summary["extra_files"] else ""
    text = f"{size(summary['bytes'])} in {count(summary['files'], 'file')}{extra}"
    if not report["ignore_file"]:
        return f"{text}; no ignore file"
    return f"{text}; {sanitize(os.path.basename(report['ignore_file']))} excludes {entries(summary['excluded'])}"


class _Row:
    """A line of the tree."""

    def __init__(self, bytes_: int, files: int | None, indent: str, name: str, *, directory: bool, rest: bool) -> None:
        self.bytes = bytes_
        self.files = files
        self.indent = indent
        self.name = name
        self.directory = directory
        self.rest = rest


def _tree(report: Report, look: Look, depth: int) -> Iterator[str]:
    total = report["summary"]["bytes"]
    for row in _rows(report["tree"], total, look, depth, "", 0):
        share = row.bytes / total
        start = f"{size(row.bytes):>8} {share:>4.0%}"
        files = f"  {count(row.files, 'file')}" if row.files is not None else ""
        if look.width is None:
            yield f"{start}  {row.name}{files}"
            continue
        bar = look.paint(look.bar(share), "36")
        room = look.width - len(start) - _BAR - 4 - columns(row.indent) - len(files)
        name = look.cut(row.name, max(room, 8))
        name = look.paint(name, "2" if row.rest else "1" if row.directory else "")
        yield f"{start}  {bar}  {row.indent}{name}{look.paint(files, '2')}"


def _rows(node: Node, total: int, look: Look, depth: int, lead: str, level: int) -> Iterator[_Row]:
    """The large things in a directory, the largest first, each followed by what is in it."""
    large = [child for child in node["children"] if child["bytes"] >= total * _LEAST_SHARE]
    shown = large[:_SIBLINGS] if level < depth else []
    rest_bytes = node["bytes"] - sum(child["bytes"] for child in shown)
    rest_files = node["files"] - sum(child["files"] for child in shown)
    has_rest = bool(shown) and rest_bytes >= total * _LEAST_SHARE and rest_files > 0
    for number, child in enumerate(shown):
        is_last = number == len(shown) - 1 and not has_rest
        name = child["path"] if look.width is None else child["path"].rpartition("/")[2]
        name = sanitize(name) + ("/" if child["directory"] else "")
        files = child["files"] if child["directory"] else None
        yield _Row(child["bytes"], files, lead + _branch(look, is_last), name, directory=child["directory"], rest=False)
        if child["directory"]:
            inner = lead + ("" if look.width is None else ("   " if is_last else "│  " if look.unicode else "|  "))
            yield from _rows(child, total, look, depth, inner, level + 1)
    if has_rest:
        parent = f" in {sanitize(node['path'])}/" if look.width is None and node["path"] else ""
        name = f"({count(rest_files, 'more file')}{parent})"
        yield _Row(rest_bytes, None, lead + _branch(look, True), name, directory=False, rest=True)


def _branch(look: Look, is_last: bool) -> str:
    if look.width is None:
        return ""
    if look.unicode:
        return "└─ " if is_last else "├─ "
    return "`- " if is_last else "|- "


def _patterns(report: Report, look: Look) -> Iterator[str]:
    """What each line of the ignore file did."""
    name = sanitize(os.path.basename(report["ignore_file"] or ""))
    yield look.paint(f"{name}: what each line excludes", "1")
    patterns = report["patterns"][:_PATTERNS]
    widest = min(max(columns(sanitize(used["pattern"])) for used in patterns), 40)
    room = max((look.width or 0) - widest - 9, 20)
    for index, used in enumerate(patterns):
        pattern = look.cut(sanitize(used["pattern"]), 40)
        pad = " " * max(widest - columns(pattern), 0)
        effect = _effect(report, index)
        idle = "2" if effect.startswith("nothing") else ""
        yield f"{used['line']:>5}  {pattern}{pad}  {look.paint(look.cut(effect, room), idle)}"
    if more := len(report["patterns"]) - len(patterns):
        yield f"       and {count(more, 'more pattern')} (--json has all)"


def _effect(report: Report, index: int) -> str:
    used = report["patterns"][index]
    takes_back = used["pattern"].startswith("!")
    if report["removed"] is None:
        if takes_back:
            return "takes back"
        return (
            f"{used['excluded']:,} {'entry' if used['excluded'] == 1 else 'entries'}" if used["excluded"] else "nothing"
        )
    removed = report["removed"][index]
    if takes_back:
        return f"takes back {count(removed['matches'], 'path')}" if removed["matches"] else "nothing: nothing matches"
    if removed["examples"] or removed["files"]:
        examples = ", ".join(map(sanitize, removed["examples"]))
        return f"{count(removed['files'], 'file')}, {size(removed['bytes'])}: {examples}"
    return "nothing: other lines decide" if removed["matches"] else "nothing: nothing matches"


def why_lines(why: Why, look: Look) -> Iterator[str]:
    """Why a path is in or out, with every line of the ignore file that had a say."""
    verdict = look.paint("in ", "32") if why["included"] else look.paint("out", "31")
    yield f"{verdict}  {sanitize(why['message'])}"
    for match in why["patterns"]:
        place = f"{match['line']:>5}" if match["file"] else "added"
        does = "excludes" if match["excludes"] else "takes back"
        slash = "/" if match["matches"] != why["path"] else ""
        effect = look.paint(f"{does} {sanitize(match['matches'])}{slash}", "2")
        yield f"     {place} | {sanitize(match['source']):<24}  {effect}"
    if contents := why["contents"]:
        inside = f"{count(contents['files'], 'file')}, {size(contents['bytes'])}"
        out = f"{count(contents['excluded_files'], 'file')}, {size(contents['excluded_bytes'])}"
        yield f"     in the context: {inside}; excluded: {out}"
