import re
import signal

import pytest

from radfound.reader_study.rating.ratings import RatingStore

from .reading_room import (
    PATIENCE_MS,
    AtScreen,
    eventually,
    make_study,
    running_browser,
    serving,
)

SIZES = {"desk": (1280, 800), "tablet": (820, 1180), "tablet on its side": (1180, 820)}
# How a case of each kind is told by its images' shape.
KINDS = {"radiograph": (1, 1), "exam": (4, 1), "volume": (1, 40)}


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def created(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), readers=30)


@pytest.fixture(scope="module")
def server(created):
    with serving(created.plan.folder) as server:
        yield server


@pytest.fixture(scope="module")
def new_readers(created):
    """The readers who have not begun yet."""
    return iter(created.addresses)


@pytest.fixture
def at_screen(browser, server, created, new_readers):
    """Open the link of a reader who has not begun."""
    opened = []

    def sit_down(size=SIZES["desk"], reader=None, **options) -> AtScreen:
        reader = reader or next(new_readers)
        screen = AtScreen(browser, server.link(created, reader), size, **options)
        screen.reader = reader
        opened.append(screen)
        screen.open()
        return screen

    yield sit_down
    for screen in opened:
        screen.close()


def latest(created, screen):
    return RatingStore(created.plan).latest(screen.reader)


def show(screen, kind: str) -> None:
    """Leave cases for later until one of this kind is shown."""
    count, depth = KINDS[kind]
    for _ in range(13):
        screen.page.locator(".viewport:not(.loading)").first.wait_for()
        viewports = screen.page.locator(".viewport")
        slices = int(viewports.first.locator("input[type=range]").get_attribute("max"))
        if (viewports.count(), slices) == (count, depth):
            return
        number, total = screen.place()
        screen.page.get_by_role("button", name="Leave for later").click()
        screen.wait_for_case(number % total + 1)
    raise AssertionError(f"no {kind}")


def test_the_instructions_name_every_scale_and_point(at_screen, created):
    screen = at_screen()
    text = screen.page.locator("main").inner_text()
    for criterion in created.plan.criteria:
        assert all(
            part in text for part in (criterion.name, criterion.description, *criterion.anchors)
        )
    assert "reader" in text and "12 cases" in text


def test_a_number_rates_the_marked_row_and_goes_on(at_screen, created):
    screen = at_screen()
    screen.begin()
    assert screen.page.locator(".row.current legend").inner_text().endswith("Factual correctness")
    screen.page.keyboard.press("4")
    screen.page.keyboard.press("2")
    assert screen.page.locator(".row.current legend").inner_text().endswith("Clinical relevance")
    screen.wait_until_saved()
    assert [(each.name, each.value) for each in latest(created, screen)] == [
        ("correctness", "4"),
        ("completeness", "2"),
    ]
    assert screen.page.locator(".guide").inner_text().startswith("Text A: Clinical relevance")


def test_a_mind_can_be_changed_with_the_mouse(at_screen, created):
    screen = at_screen()
    screen.begin()
    row = screen.page.get_by_role("group", name="Text B: Readability")
    for point in ("3", "5"):
        row.locator(".point").filter(has_text=point).first.click()
    screen.wait_until_saved()
    assert [each.value for each in latest(created, screen)] == ["5"]
    assert (
        screen.page.locator(".guide .chosen").inner_text() == created.plan.criteria[-1].anchors[4]
    )


def test_a_comment_is_saved_while_it_is_written_and_its_keys_rate_nothing(at_screen, created):
    screen = at_screen()
    screen.begin()
    screen.page.keyboard.press("c")
    screen.page.keyboard.type("5 mm nodule missed")
    said = [("comment", "5 mm nodule missed")]
    eventually(
        lambda: [(each.kind, each.value) for each in latest(created, screen)],
        lambda found: found == said,
    )
    screen.page.keyboard.press("Escape")
    screen.page.keyboard.press("3")
    eventually(lambda: len(latest(created, screen)), lambda count: count == 2)


def test_next_leads_to_what_is_missing_first(at_screen):
    screen = at_screen()
    screen.begin()
    screen.rate_case(at_most=10)  # all but the preference
    screen.page.keyboard.press("n")
    assert "Case 1 of" in screen.page.locator(".place").inner_text()
    assert screen.page.locator(".row.current legend").inner_text() == "A or B"
    screen.page.keyboard.press("2")
    assert screen.page.evaluate("document.activeElement.textContent") == "Next case"
    screen.page.keyboard.press("Enter")
    screen.wait_for_case(2)


def test_an_outage_loses_nothing(at_screen, created, server):
    screen = at_screen()
    screen.begin()
    screen.page.keyboard.press("5")
    screen.wait_until_saved()
    server.stop(signal.SIGKILL)
    try:
        screen.page.keyboard.press("4")
        screen.page.keyboard.press("3")
        screen.page.locator(".saving[data-state=away]").wait_for()
        assert screen.page.locator(".saving").inner_text().startswith("Not saved yet (2)")
        assert len(latest(created, screen)) == 1
    finally:
        server.start()
    screen.wait_until_saved()
    assert [each.value for each in latest(created, screen)] == ["5", "4", "3"]


def test_what_was_not_saved_when_the_browser_was_closed_is_saved_when_it_comes_back(
    at_screen, created, server
):
    screen = at_screen()
    screen.begin()
    server.stop(signal.SIGKILL)
    try:
        screen.page.keyboard.press("2")
        screen.page.locator(".saving[data-state=away]").wait_for()
        screen.page.close(run_before_unload=False)
        assert latest(created, screen) == []
    finally:
        server.start()
    screen.page = screen.context.new_page()
    screen.page.set_default_timeout(PATIENCE_MS)
    screen.open()
    screen.page.locator(".saving").wait_for()
    screen.wait_until_saved()
    assert [each.value for each in latest(created, screen)] == ["2"]


def test_a_wrong_link_says_what_to_do(browser, server):
    for fragment, advice in (
        ("", "Open the whole link"),
        ("#wrong", "opens no pages of this study"),
    ):
        screen = AtScreen(browser, server.address + "/" + fragment)
        screen.page.goto(screen.link)
        screen.page.get_by_text(re.compile(advice)).wait_for()
        screen.context.close()


def test_the_agreement_is_kept(at_screen, created):
    screen = at_screen()
    screen.page.get_by_label("Yes", exact=True).check()
    screen.wait_until_saved()
    assert RatingStore(created.plan).has_agreed(screen.reader) is True


# Images -------------------------------------------------------------------------------------------

BRIGHT = """(canvas, least) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [count, across, down] = [0, 0, 0];
  for (let index = 0; index < data.length; index += 4) if (data[index] >= least) {
    count += 1; across += (index / 4) % width; down += Math.floor(index / 4 / width);
  }
  return [count / (width * height), across / count / width, down / count / height];
}"""


def bright_part(screen, least=251, viewport=0):
    """The share of an image that is at least so bright, and its middle across and down, from 0 to 1."""
    screen.page.locator(".viewport:not(.loading)").nth(viewport).wait_for()
    return screen.page.locator(".stage canvas").nth(viewport).evaluate(BRIGHT, least)


def brightness(screen, holds, **choice) -> float:
    """The share of the image that is bright, once it is as it should be."""
    return eventually(lambda: bright_part(screen, **choice)[0], holds)


def test_slices_are_leafed_through_by_wheel_keys_and_slider(at_screen):
    screen = at_screen()
    screen.begin()
    show(screen, "volume")
    counter = screen.page.locator(".counter")
    assert counter.inner_text() == "20 / 40"
    screen.page.locator(".stage").hover()
    for _ in range(3):
        screen.page.mouse.wheel(0, 100)
    screen.page.keyboard.press("s")
    screen.page.keyboard.press("Shift+W")
    screen.page.get_by_text("19 / 40", exact=True).wait_for()
    screen.page.get_by_role("slider").fill("11")
    screen.page.get_by_text("11 / 40", exact=True).wait_for()
    brightness(screen, lambda share: share > 0)
    _, across, down = bright_part(screen)
    assert across > 0.5 and down < 0.5  # the spot lies in front, on the patient's left
    screen.page.get_by_role("button", name="Coronal").click()
    screen.page.get_by_text(re.compile(r"\d+ / 44$")).wait_for()


def test_windows_follow_keys_numbers_and_the_dragging_hand(at_screen):
    screen = at_screen()
    screen.begin()
    show(screen, "volume")
    center, width = (screen.page.get_by_label(f"Window {each}") for each in ("centre", "width"))
    center.fill("50")
    width.fill("20")
    screen.page.keyboard.press("Tab")
    whole_head = brightness(screen, lambda share: share > 0.2)
    chosen = screen.page.get_by_label("Window", exact=True).locator("option:checked")
    assert chosen.inner_text() == "Free window"
    screen.page.keyboard.press("i")
    brightness(screen, lambda share: 0.1 < share < whole_head)  # the air beside the head
    screen.page.keyboard.press("i")
    screen.page.keyboard.press("x")
    brightness(screen, lambda share: share < whole_head / 2)
    before = width.input_value()
    screen.page.locator(".stage").hover()
    screen.page.mouse.down(button="right")
    screen.page.mouse.move(300, 300)
    screen.page.mouse.up(button="right")
    eventually(width.input_value, lambda now: now != before)


def test_one_of_four_views_is_enlarged_and_zoomed(at_screen):
    screen = at_screen()
    screen.begin()
    show(screen, "exam")
    viewports = screen.page.locator(".viewport").all()
    boxes = [each.bounding_box() for each in viewports]
    assert all(box["width"] > 250 and box["height"] > 250 for box in boxes)
    screen.page.keyboard.press("v")
    screen.page.keyboard.press("f")
    assert [each.is_visible() for each in viewports] == [False, True, False, False]
    second = {"least": 1, "viewport": 1}
    before = brightness(screen, lambda share: 0.2 < share < 0.9, **second)
    for _ in range(5):
        screen.page.keyboard.press("+")
    brightness(screen, lambda share: share > 0.99, **second)
    screen.page.keyboard.press("0")
    brightness(screen, lambda share: share == pytest.approx(before), **second)


def test_fingers_zoom_and_leaf(at_screen):
    screen = at_screen(SIZES["tablet"], has_touch=True)
    screen.begin()
    show(screen, "volume")
    box = screen.page.locator(".stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = screen.context.new_cdp_session(screen.page)

    def send(kind, *points):
        touches = [{"x": px, "y": py, "id": at} for at, (px, py) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    send("touchStart", (x, y))
    send("touchMove", (x, y + 60))
    send("touchEnd")
    eventually(screen.page.locator(".counter").inner_text, lambda text: text != "20 / 40")
    before = brightness(screen, lambda share: share > 0, least=100)
    send("touchStart", (x - 20, y), (x + 20, y))
    send("touchMove", (x - 80, y), (x + 80, y))
    send("touchEnd")
    brightness(screen, lambda share: share > before, least=100)


# For every reader and every screen ----------------------------------------------------------------

NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, fieldset, canvas, dialog, section")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.getAttribute("aria-label") || [...(each.labels ?? [])].some((label) => label.textContent.trim())
    || each.querySelector(":scope > legend")?.textContent.trim() || (each.tagName === "BUTTON" && each.textContent.trim())
    || (each.tagName === "SECTION" && each.querySelector("h2, h3"))))
  .map((each) => each.outerHTML.slice(0, 120))"""

PALE = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(each).backgroundColor);
      if (alpha > 0) return [r, g, b];
    }
    return [0, 0, 0];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest(":disabled, .sr, script")) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(numbers(style.color).slice(0, 3)), light(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.textContent.slice(0, 60)}`);
  }
  return found;
}"""

SMALL = """() => [...document.querySelectorAll("button, select, textarea, .point, .choice, input[type=range], input[type=number]")]
  .filter((each) => each.checkVisibility())
  .map((each) => [each.outerHTML.slice(0, 100), each.getBoundingClientRect()])
  .filter(([, box]) => box.height < 40 || box.width < 40).map(([html]) => html)"""

OUTSIDE = """() => [...document.querySelectorAll("#bar button, .saving, .footer button, .tools button, .leafing, .guide, .stage")]
  .filter((each) => each.checkVisibility())
  .map((each) => [each.outerHTML.slice(0, 100), each.getBoundingClientRect()])
  .filter(([, box]) => box.left < -0.5 || box.top < -0.5 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5)
  .map(([html]) => html)"""


def check_for_everyone(screen) -> None:
    assert screen.page.evaluate(NAMELESS) == []
    assert screen.page.evaluate(PALE) == []
    assert screen.page.evaluate(SMALL) == []
    assert screen.page.evaluate(OUTSIDE) == []
    assert screen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert screen.page.evaluate("document.scrollingElement.scrollTop") == 0


@pytest.mark.parametrize("size", SIZES)
def test_every_screen_fits_is_named_and_is_readable(at_screen, size, created):
    screen = at_screen(SIZES[size])
    check_for_everyone(screen)
    screen.begin()
    for kind in KINDS:
        show(screen, kind)
        screen.rate_case(at_most=3)
        check_for_everyone(screen)
        stage = screen.page.locator(".stage").first.bounding_box()
        assert stage["height"] > (130 if kind == "exam" else 260)
    screen.page.keyboard.press("?")
    check_for_everyone(screen)


def test_the_focus_can_be_seen_on_everything_that_tab_reaches(at_screen):
    screen = at_screen()
    screen.begin()
    seen = set()
    for _ in range(40):
        screen.page.keyboard.press("Tab")
        name, outline = screen.page.evaluate("""() => {
          const shown = document.activeElement.closest(".point, .viewport") ?? document.activeElement;
          const styles = [getComputedStyle(shown), getComputedStyle(shown.querySelector(".stage") ?? shown, "::after")];
          return [document.activeElement.outerHTML.slice(0, 90), styles.map((each) => each.outlineStyle + each.borderTopWidth)];
        }""")
        if name.startswith("<body"):  # beyond the last
            continue
        seen.add(name)
        assert "solid" in outline[0] or outline[1].endswith("3px") or "auto" in outline[0], name
    assert len(seen) > 15


def test_single_keys_can_be_turned_off(at_screen, created):
    screen = at_screen()
    screen.begin()
    screen.page.keyboard.press("?")
    screen.page.get_by_label("Use these keys").uncheck()
    screen.page.get_by_role("button", name="Close").click()
    screen.page.keyboard.press("4")
    assert latest(created, screen) == []
