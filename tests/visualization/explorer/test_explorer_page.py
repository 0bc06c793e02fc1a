"""The routing explorer in a browser: what it answers is what the API says."""

import numpy as np
import pytest
import torch
from chromium import chromium
from layer_loops import randomise
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmbiformer.errors import UserError
from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.visualization import Look, PlacedMap, capture_routing
from mmbiformer.visualization.explorer.page import View, write_explorer
from mmbiformer.visualization.explorer.scene import Scene, Thing
from mmbiformer.visualization.placement import Placement

WIDTH, HEIGHT = 300, 200
META = dict(classes=('cat', 'dog'), palette=[(255, 0, 0), (0, 0, 255)])
DETECTIONS = InstanceData(
    bboxes=torch.tensor([[10.0, 10, 60, 60], [200, 100, 260, 160]]),
    labels=torch.tensor([0, 1]),
    scores=torch.tensor([0.9, 0.6]),
)
TRUTH = Scene([Thing((12, 10, 60, 62), 'cat'), Thing((100, 20, 120, 44), 'dog')])
MISSED = 110, 32  # the middle of the dog
# Scaled by 0.64, and flipped: the last column of the input is the first of the image.
PLACEMENTS = Placement((0.64, 0.64), (0, 0)), Placement((-0.64, 0.64), (192, 0))
MODULES = {
    'official': (dict(padding='official'), (15, 22)),
    'soft': (dict(routing='soft'), (16, 24)),
    'masked': (dict(padding='masked'), (15, 22)),
    'pooled': (dict(pooling=dict(type='AdaptiveAvg', side=2)), (15, 22)),
}


def view(prediction: BaseDataElement, placement: Placement = PLACEMENTS[0], **kinds) -> View:
    maps = []
    for name, (options, size) in (kinds or MODULES).items():
        module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, **options))
        with torch.no_grad(), capture_routing(module) as captured:
            module(torch.randn(1, *size, 8, dtype=torch.float64))
        captured[0].name = name
        stride = 192 / size[1], 128 / size[0]
        maps.append(PlacedMap(captured[0], placement, stride, (HEIGHT, WIDTH)))
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return View('a model', Look(image, maps, prediction), META)


@pytest.fixture(scope='module')
def detector():
    return view(BaseDataElement(pred_instances=DETECTIONS))


@pytest.fixture(scope='module')
def path(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp('explorer') / 'image.html'
    return write_explorer(path, [detector], TRUTH, threshold=0.5)


@pytest.fixture(scope='module')
def browser(path):
    with chromium() as page:
        page.open(path)
        yield page


@pytest.fixture
def page(browser, path):
    """The page afresh, its colours there."""
    browser.resize(1200, 900)
    browser.send('Page.navigate', url='about:blank')
    browser.send('Page.navigate', url=path.as_uri())
    wait_for_answer(browser)
    yield browser
    assert browser.errors == []


def wait_for_answer(page) -> None:
    page.wait(
        'document.readyState === "complete" && [...document.querySelectorAll("tbody")].every('
        'x => x.rows.length && x.rows[0].dataset.attention !== "")'
    )


def choose(page, name: str, value: str | int) -> None:
    """Choose in a list, as a user does."""
    page.run(
        f"(() => {{ const x = document.querySelector('select.{name}'); x.value = '{value}'; "
        "x.dispatchEvent(new Event('change')); })()"
    )
    wait_for_answer(page)


def place_on_screen(page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is in the window."""
    left, top, width, height = page.run(
        "(() => { const x = document.querySelector('.image').getBoundingClientRect(); "
        'return [x.left, x.top, x.width, x.height]; })()'
    )
    assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    return left + x * width / WIDTH, top + y * height / HEIGHT


def rows(page) -> list[dict]:
    """The table: region, affinity and attention, in full precision."""
    found = page.run(
        "[...document.querySelectorAll('tbody tr')].map(x => [Number(x.dataset.region), "
        'Number(x.dataset.affinity), Number(x.dataset.attention)])'
    )
    return [dict(zip(('region', 'affinity', 'attention'), x, strict=True)) for x in found]


def heat(page) -> tuple[int, int, list]:
    """Rows and columns of the colours, and where they are opaque."""
    return page.run(
        "(() => { const x = document.querySelector('.heat'); const y = x.getContext('2d')"
        '.getImageData(0, 0, x.width, x.height).data; return [x.height, x.width, '
        '[...y].filter((_, i) => i % 4 === 3).map(x => x > 0)]; })()'
    )


def check_answer(page, placed: PlacedMap, x: float, y: float, head: int | None = None) -> None:
    """What the page says of a pixel is what the API says."""
    routed = placed.routed
    token = placed.token_at(x, y)
    region = routed.region_of(*token)
    weights, padding = routed.attention(*token)
    shares = weights.mean(0) if head is None else weights[head]
    found = rows(page)
    assert [row['region'] for row in found] == routed.indices[0, region].tolist()
    height, width = (-(-n // routed.partition_factor) for n in shares.shape)
    for row in found:
        expected = routed.affinity[0, region, row['region']].item()
        assert row['affinity'] == pytest.approx(expected, rel=1e-6)
        i, j = divmod(row['region'], routed.partition_factor)
        part = shares[i * height : (i + 1) * height, j * width : (j + 1) * width]
        assert row['attention'] == pytest.approx(part.sum().item(), abs=0.01)
    on_padding = padding.mean() if head is None else padding[head]
    total = sum(row['attention'] for row in found)
    assert total == pytest.approx(1 - on_padding.item(), abs=0.01)
    *size, opaque = heat(page)
    assert tuple(size) == tuple(shares.shape)
    assert opaque == (shares > 0).flatten().tolist()
    said = page.run("document.querySelector('.answer').textContent")
    assert f'row {token[0] + 1} and column {token[1] + 1} of' in said
    if on_padding >= 0.01:
        assert 'on padding' in said


@pytest.mark.parametrize('name', MODULES)
def test_clicks_answer_as_the_api(page, detector, name):
    number = list(MODULES).index(name)
    choose(page, 'map', number)
    for x, y in ((5, 7), (150, 100), (297, 3), (288, 193)):
        page.click(*place_on_screen(page, x, y))
        wait_for_answer(page)
        check_answer(page, detector.look.maps[number], x, y)
    choose(page, 'head', 1)
    check_answer(page, detector.look.maps[number], x, y, head=1)


def test_a_flipped_image(tmp_path):
    prediction = BaseDataElement(pred_instances=DETECTIONS)
    flipped = view(prediction, PLACEMENTS[1], official=MODULES['official'])
    with chromium() as page:
        page.open(write_explorer(tmp_path / 'flipped.html', [flipped]))
        wait_for_answer(page)
        for x, y in ((3, 3), (290, 150)):
            page.click(*place_on_screen(page, x, y))
            check_answer(page, flipped.look.maps[0], x, y)
        assert page.run("document.querySelector('.heat').style.transform") == 'scale(-1, 1)'


def test_the_mouse_asks_until_a_click_pins_the_place(page):
    def said() -> str:
        return page.run("document.querySelector('.answer').textContent.split(':')[0]")

    places = [place_on_screen(page, x, 50) for x in (50, 100, 150, 200)]
    page.move(*places[0])
    assert said() == 'Place 50, 50'
    page.click(*places[1])
    page.move(*places[2])
    assert said() == 'Place 100, 50'
    assert page.run('location.hash').startswith('#100.')
    page.press('Escape')
    page.move(*places[3])
    assert said() == 'Place 200, 50'


def test_keys_move_by_tokens_and_regions(page, detector):
    choose(page, 'map', 0)
    placed = detector.look.maps[0]
    page.click(*place_on_screen(page, 150, 100))
    row, column = placed.token_at(150, 100)
    height, width = placed.routed.partition.region

    def token() -> str:
        return page.run("document.querySelector('.answer').textContent.match(/row.*?of/)[0]")

    page.press('ArrowRight')
    assert token() == f'row {row + 1} and column {column + 2} of'
    page.press('ArrowUp')
    assert token() == f'row {row} and column {column + 2} of'
    page.press('ArrowLeft', shift=True)
    assert token() == f'row {row} and column {column + 2 - width} of'
    page.press('ArrowDown', shift=True)
    assert token() == f'row {row + height} and column {column + 2 - width} of'
    page.press('PageDown')
    assert page.run("document.querySelector('select.map').value") == '1'
    page.press('PageUp')
    page.press('PageUp')
    assert page.run("document.querySelector('select.map').value") == '0'


def test_touch(page, detector):
    choose(page, 'map', 0)
    page.touch(*place_on_screen(page, 40, 150))
    page.wait("document.querySelector('.answer').textContent.startsWith('Place ')")
    check_answer(page, detector.look.maps[0], 40, 150)


def test_an_address_with_a_place(page, path, detector):
    page.send('Page.navigate', url='about:blank')
    page.send('Page.navigate', url=f'{path.as_uri()}#240,30.5')
    wait_for_answer(page)
    choose(page, 'map', 0)
    check_answer(page, detector.look.maps[0], 240, 30.5)


def test_how_often_regions_are_chosen(page, detector):
    choose(page, 'map', 0)
    choose(page, 'layer', 'chosen')
    most = page.run("document.querySelector('.most').textContent")
    assert int(most) == detector.look.maps[0].in_degree().max()
    assert heat(page)[:2] == [4, 4]


def test_missed_objects_are_named_and_asked_about(page, detector):
    choose(page, 'map', 0)
    names = page.run("[...document.querySelectorAll('.legend button')].map(x => x.textContent)")
    assert names == ['dog, 22 px, missed', 'cat, 50 px, found']
    page.run("document.querySelector('button.missed').click()")
    placed = detector.look.maps[0]
    check_answer(page, placed, *MISSED)
    choose(page, 'layer', 'missed')
    region = placed.routed.region_of(*placed.token_at(*MISSED))
    chosen = placed.routed.indices[0, region].tolist()
    assert [i for i, x in enumerate(heat(page)[2]) if x] == sorted(chosen)


def test_boxes_can_be_hidden(page):
    def count(name: str) -> int:
        return page.run(f"document.querySelectorAll('.things rect.{name}').length")

    assert [count(x) for x in ('found', 'missed', 'there')] == [2, 1, 1]
    page.run("document.getElementById('found').click()")
    assert [count(x) for x in ('found', 'missed', 'there')] == [0, 1, 1]
    page.run("document.getElementById('truth').click()")
    assert [count(x) for x in ('found', 'missed', 'there')] == [0, 0, 0]


def test_label_maps(tmp_path):
    labels = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.long)
    labels[..., 200:] = 1
    segmenter = view(
        BaseDataElement(pred_sem_seg=PixelData(data=labels)), masked=MODULES['masked']
    )
    truth = Scene([], labels=np.full((HEIGHT, WIDTH), 255, np.uint8))
    with chromium() as page:
        page.open(write_explorer(tmp_path / 'labels.html', [segmenter], truth))
        wait_for_answer(page)
        found = page.run("[...document.querySelectorAll('.legend li')].map(x => x.textContent)")
        assert found == ['cat 66.7 %', 'dog 33.3 %']
        colours = page.run(
            "(async () => { const x = document.querySelector('.labels.found'); await x.decode(); "
            "const c = document.createElement('canvas'); const d = c.getContext('2d'); "
            'c.width = x.naturalWidth; c.height = x.naturalHeight; d.drawImage(x, 0, 0); '
            'return [0, 299].map(i => [...d.getImageData(i, 0, 1, 1).data]); })()'
        )
        assert colours == [[255, 0, 0, 255], [0, 0, 255, 255]]
        hidden = page.run("[...document.querySelectorAll('.labels')].map(x => x.hidden)")
        assert hidden == [False, True]  # one would cover the other
        assert page.errors == []


def test_two_models_answer_side_by_side(tmp_path, detector):
    other = view(BaseDataElement(pred_instances=DETECTIONS[:1]), masked=MODULES['masked'])
    with chromium() as page:
        path = write_explorer(tmp_path / 'two.html', [detector, other], TRUTH, threshold=0.5)
        page.open(path, 1400, 900)
        wait_for_answer(page)
        page.click(*place_on_screen(page, 33, 44))
        answers = page.run("[...document.querySelectorAll('.answer')].map(x => x.textContent)")
        assert len(answers) == 2
        assert all(x.startswith('Place 33, 44') for x in answers)
        tops = page.run(
            "[...document.querySelectorAll('.image')].map(x => x.getBoundingClientRect().top)"
        )
        assert tops[0] == pytest.approx(tops[1], abs=1)
        assert page.errors == []


def test_those_who_do_not_see_are_told(page):
    page.click(*place_on_screen(page, 60, 60))
    names = page.names()
    roles = {name: role for role, name in names}
    assert roles['image, routing of a model: arrow keys move the query'] == 'application'
    for label in ('Routed attention', 'Head', 'Colours'):
        assert ('combobox', label) in names
    for label in ('regions', 'predictions', 'ground truth', 'image in grey'):
        assert ('checkbox', label) in names
    spoken = page.run("document.querySelector('[role=status]').textContent")
    assert spoken.startswith('Place 60, 60')
    assert 'Best: region ' in spoken


@pytest.mark.parametrize('width', [360, 1400])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_any_window_and_light(path, width, dark):
    with chromium() as page:
        page.open(path, width, 900)
        if dark:
            page.dark()
        wait_for_answer(page)
        assert page.run('document.documentElement.scrollWidth') <= width
        ink, ground = page.run(
            '(() => { const x = getComputedStyle(document.body); '
            'return [x.color, x.backgroundColor]; })()'
        )
        light, deep = (sum(map(int, x[4:-1].split(', '))) for x in (ground, ink))
        assert (light < deep) is dark
        assert abs(light - deep) > 3 * 150
        assert page.errors == []


def test_it_loads_nothing(page, path):
    """All that is asked for is the page, and what it holds itself."""
    assert {x.split(':')[0] for x in page.requests} <= {'file', 'data', 'about'}
    assert {x for x in page.requests if x.startswith('file')} <= {
        path.as_uri(),
        f'{path.as_uri()}#240,30.5',
    }


def test_a_name_cannot_end_the_page(tmp_path):
    """Names of classes are text, whatever they are."""
    name = '</script><script>document.title = "bitten"</script>'
    prediction = BaseDataElement(pred_instances=DETECTIONS)
    bitten = view(prediction, masked=MODULES['masked'])
    bitten.meta = dict(classes=(name, name))
    with chromium() as page:
        page.open(write_explorer(tmp_path / 'image.html', [bitten]))
        wait_for_answer(page)
        assert page.run('document.title') == 'Routing in image'
        assert name in page.run("document.querySelector('.things text').textContent")


def test_a_page_of_a_size(tmp_path, detector):
    """With the finest codes it is 124 KB, of which the picture is most."""
    sizes = [
        write_explorer(tmp_path / 'image.html', [detector], max_bytes=x).stat().st_size
        for x in (10**9, 118_000)
    ]
    assert 110_000 < sizes[1] <= 118_000 < sizes[0]
    with pytest.raises(UserError, match='does not fit --max-size'):
        write_explorer(tmp_path / 'image.html', [detector], max_bytes=50_000)


def test_escape_frees_a_place_that_a_link_pinned(page, path):
    page.send('Page.navigate', url='about:blank')
    page.send('Page.navigate', url=f'{path.as_uri()}#240,30.5')
    wait_for_answer(page)
    page.press('Escape')
    page.move(*place_on_screen(page, 50, 60))
    assert page.run("document.querySelector('.answer').textContent").startswith('Place 50, 60')


def test_what_is_chosen_in_lists_is_told(page):
    choose(page, 'map', 1)
    page.click(*place_on_screen(page, 60, 60))
    spoken = page.run("document.querySelector('[role=status]').textContent")
    choose(page, 'map', 0)
    assert page.run("document.querySelector('[role=status]').textContent") != spoken
