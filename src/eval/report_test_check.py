"""Reads what report_test wrote with parsers that are not ours and prints what it found as JSON: report_test_check.py FILE.

An SVG must be well-formed XML, an HTML page must close every element in order; both must name nothing outside themselves.
"""
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, len(self.texts)))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] not in ("style", "script"):
            self.texts.append((self.open[-1][0], data))


content = open(sys.argv[1], encoding="utf-8").read()
assert not re.search(r"""(?:src|href)\s*=|@import|url\(|\bfetch\(|XMLHttpRequest""", content), "refers to something outside"
if sys.argv[1].endswith(".svg"):
    root = ElementTree.fromstring(content)
    elements = [(e.tag.rpartition("}")[2], e.attrib) for e in root.iter()]
    texts = [(e.tag.rpartition("}")[2], e.text or "") for e in root.iter()]
else:
    page = Page()
    page.feed(content)
    page.close()
    assert not page.open, f"never closed: {page.open}"
    elements, texts = page.elements, page.texts
print(json.dumps({
    "tags": sorted({tag for tag, _ in elements}),
    "points": [int(a["data-id"]) for _, a in elements if "pt" in a.get("class", "").split()],
    "fronts": [int(a["data-id"]) for _, a in elements if a.get("class") == "pt front"],
    "figures": sum("title" == a.get("class") for _, a in elements),
    "attributes": sorted({name for _, a in elements for name in a}),
    "texts": [text for _, text in texts if text.strip()],
}))
