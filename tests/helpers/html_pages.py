"""Reading the HTML of a report, for its tests."""

from html.parser import HTMLParser

EMPTY_TAGS = {'meta', 'img'}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps tables by caption, links, ids and all text."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tables, self.links, self.ids, self.tags = [], {}, [], [], []
        self.text, self.style, self.rows, self.cell = '', '', None, None
        self.feed(source)
        self.close()
        assert not self.open

    def handle_startendtag(self, tag, attributes):
        self.note(tag, attributes)

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag not in EMPTY_TAGS:
            self.open.append(tag)
        if tag == 'table':
            self.rows = []
        elif tag == 'tr':
            self.rows.append([])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')

    def note(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        for key, value in attributes:
            if key in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data'):
                self.links.append(value)
            elif key == 'id':
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == 'table':
            self.tables[self.caption] = self.rows

    def handle_data(self, text):
        if self.open and self.open[-1] == 'style':
            self.style += text
        self.text += text
        if self.open and self.open[-1] == 'caption':
            self.caption = text
        elif self.open[-1:] in (['td'], ['th'], ['button']):
            self.rows[-1][-1] += text
        elif self.open[-1:] == ['small']:
            self.rows[-1][-1] += f' {text}'


def table_of(page, begin):
    """Cells of the one table whose caption begins so, row by row."""
    (caption,) = (x for x in page.tables if x.startswith(begin))
    return page.tables[caption]


def check_self_contained(page):
    """Nothing is loaded, ids are unique, and links within the page have their end."""
    for link in page.links:
        assert link.startswith(('#', 'data:image/')), link
    assert 'url(' not in page.style and '@import' not in page.style
    assert not {tag for tag, _ in page.tags} & {'link', 'iframe', 'object', 'embed', 'base'}
    anchors = {x[1:] for x in page.links if x.startswith('#')}
    assert anchors and anchors <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    # All of the script and style is the template's: no name of a report has opened another one.
    names = [tag for tag, _ in page.tags]
    assert names.count('script') == names.count('style') == 1


def check_accessible(page, num_tables):
    """What readers need who do not see the page."""
    assert {'lang': 'en'} in [x for tag, x in page.tags if tag == 'html']
    names = [tag for tag, _ in page.tags]
    assert names.count('caption') == names.count('table') == num_tables
    for tag, attributes in page.tags:
        if tag == 'th':
            assert 'scope' in attributes
        if tag == 'img':
            assert attributes['alt']
        if tag == 'svg':
            assert 'aria-label' in attributes or 'aria-hidden' in attributes
