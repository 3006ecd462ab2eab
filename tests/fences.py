"""Code in pages."""

import re


def fences(page, language):
    """Line number and text of a page's code fences; those within lists are indented."""
    text = page.read_text(encoding="utf-8")
    for fence in re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        indent, code = fence.groups()
        yield text.count("\n", 0, fence.start()) + 2, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
