"""What pages of one file are checked by: whole, and with nothing from outside."""

from html.parser import HTMLParser


class Checked(HTMLParser):
    """Fails where a tag is not closed, or something comes from elsewhere; ``tags`` and ``text``."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert not {"src", "href", "onload", "onclick"} & dict(attrs).keys()
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)
