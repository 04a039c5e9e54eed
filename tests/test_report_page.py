"""The report's page in a real Chromium, opened from disk: what a reader can do with it, by mouse and by keyboard."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, requested, scheme, until
from PIL import Image
from records import IDS
from report_records import EVIL, FRAMES, QUOTED, frame_in, with_made_up_samples, write_run

from halign_bench.cli import main
from halign_bench.track import FPS

AXE = Path(__file__).resolve().parent / "axe" / "axe.min.js"
HEADERS = "#leaderboard-table thead th"
VIDEOS = "[...document.querySelectorAll('#gallery-player video')]"


@pytest.fixture(scope="module")
def window():
    with chromium() as window:
        yield window


@pytest.fixture(scope="module")
def address(window, tmp_path_factory):
    """Of a report with made-up samples of six clips; after `window`, so that nothing is made where there is none."""
    run = write_run(tmp_path_factory.mktemp("run"))
    out = tmp_path_factory.mktemp("made") / "report"
    with pytest.MonkeyPatch.context() as patch:
        with_made_up_samples(patch)
        assert main(["report", str(run), "--out", str(out), "--clips", "6"]) == 0
    return (out / "index.html").as_uri()


@pytest.fixture
def page(window, address):
    """Opened anew in light; afterwards nothing has been complained of, and nothing asked for but the report's files."""
    scheme(window, "light")
    window.get(address)
    until(window, "Boolean(window.halign?.leaderboard)")
    yield window
    folder = address.rsplit("/", 1)[0]
    assert [entry["message"] for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert [url for url in requested(window) if not url.startswith((folder, "data:", "about:", "chrome:"))] == []


def column(page, number):
    rows = "[...document.querySelectorAll('#leaderboard-table tbody tr')]"
    return page.execute_script(f"return {rows}.map(row => row.cells[arguments[0]].innerText)", number)


def titles(page):
    texts = page.execute_script(f"return [...document.querySelectorAll('{HEADERS}')].map(th => th.textContent)")
    return [" ".join(text.split()) for text in texts]


def press(page, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def search(page, part, text):
    """Types over what stands in the filter of a table."""
    field = page.find_element("css selector", f"{part} input[type=search]")
    field.send_keys("\ue009a\ue000", text or "\ue017")  # Ctrl+A, then the text or Delete


def select(page, name, value):
    page.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('change'))", name, value,
    )  # fmt: skip


def numbers(texts):
    return [None if text.strip().startswith("-") else float(text.split()[0]) for text in texts]


# Leaderboard


def test_a_header_sorts_first_to_the_better_side_and_what_has_no_score_stays_last(page):
    fid, sync = titles(page).index("FID ↓ @toy"), titles(page).index("Sync-C ↑ @toy")
    for at, first in ((fid, "ascending"), (sync, "descending")):
        for expected in (first, "descending" if first == "ascending" else "ascending"):
            header = page.find_elements("css selector", HEADERS)[at]
            page.execute_script("arguments[0].querySelector('[role=button]').click()", header)
            until(page, "arguments[0].ariaSort === arguments[1]", header, expected)
            values = numbers(column(page, at))
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=expected == "descending") and values[len(known) :] == [None]


def test_tab_and_enter_sort_too(page):
    page.execute_script(f"document.querySelector('{HEADERS} [role=button]').focus()")
    press(page, "\ue007")  # Enter
    until(page, f"document.querySelector('{HEADERS}').ariaSort === 'ascending'")
    names = column(page, 0)
    assert names == sorted(names, key=str.lower)


def test_filters_by_name_nfe_status_and_front(page):
    assert set(column(page, 1)) == {"20"} and len(column(page, 0)) == 6  # the main NFE, with the failure
    select(page, "leaderboard-nfe", "10")
    assert set(column(page, 1)) == {"10"}
    select(page, "leaderboard-nfe", "")
    assert len(column(page, 0)) == 11
    search(page, "#leaderboard", "dpo")
    assert {name.split()[0] for name in column(page, 0)} == {"diffusion-dpo"}
    search(page, "#leaderboard", "")
    select(page, "leaderboard-status", "failed")
    until(page, "document.querySelectorAll('#leaderboard-table tbody tr').length === 1")
    assert column(page, 0) == ["tpo"]


def test_columns_can_be_left_out(page):
    before = titles(page)
    page.execute_script("document.querySelectorAll('#leaderboard-columns input')[0].click()")
    assert titles(page) == [before[0], *before[2:]]


def test_names_that_are_markup_are_text(page):
    assert EVIL in [name.removesuffix(" *") for name in column(page, 0)]
    page.execute_script("document.getElementById('gallery').scrollIntoView()")
    until(page, "document.querySelectorAll('button.clip').length")
    shown = page.execute_script("return halign.data('gallery').then(g => g.clips.map(c => c.id))")
    assert QUOTED in shown
    search(page, "#gallery-clips", "onerror")
    until(page, "document.querySelectorAll('button.clip').length === 1")
    assert page.find_element("css selector", "button.clip").text == QUOTED
    page.find_element("css selector", "button.clip").click()
    until(page, "document.getElementById('gallery-clip').textContent.startsWith(arguments[0])", QUOTED)
    assert page.execute_script("return document.querySelectorAll('main img, main script, main iframe').length") == 0


# Figures


def panel(page, name, number=0):
    page.execute_script(f"document.querySelector('[data-figure={name}]').scrollIntoView()")
    return until(page, f"document.querySelectorAll('[data-figure={name}] .canvas')[{number}]")


def test_pointing_at_a_mark_tells_its_values(page):
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = panel(page, "quality-nfe")
    x, y = until(page, """(() => {
        const chart = echarts.getInstanceByDom(arguments[0]);
        const at = chart.getOption().series.findIndex(one => one.type === 'line' && one.name === 'diffusion-dpo');
        return chart.convertToPixel({ seriesIndex: at }, chart.getOption().series[at].data[0].value.slice(0, 2));
    })()""", canvas)  # fmt: skip
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    box = page.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.width, b.height]", canvas)
    move = ActionChains(page).move_to_element_with_offset(canvas, round(x - box[0] / 2), round(y - box[1] / 2))
    move.move_by_offset(1, 0).perform()
    text = until(page, "document.querySelector('.chart-tooltip .tooltip')?.innerText")
    shown = page.execute_script(
        "return halign.data('quality-nfe').then(p => p[0].series.find(s => s.name === 'diffusion-dpo').points[0])"
    )
    assert "diffusion-dpo" in text and f"network evaluations: {shown['x']}" in text
    value = f"{shown['y']:.4g}"
    assert f"{float(value):g}" in text and "seeds" in text


def test_arrow_keys_tell_the_values_of_a_panel(page):
    canvas = panel(page, "pareto")
    page.execute_script("arguments[0].focus()", canvas)
    press(page, "\ue014")  # Right
    said = until(page, "arguments[0].parentElement.querySelector('[aria-live]').textContent", canvas)
    press(page, "\ue014")
    until(page, "arguments[0].parentElement.querySelector('[aria-live]').textContent !== arguments[1]", canvas, said)
    assert said.startswith("base, Δ ") and until(page, "document.querySelector('.chart-tooltip .tooltip')?.innerText")


def test_methods_can_be_left_out_of_the_figures(page):
    canvas = panel(page, "win-rates")
    names = "echarts.getInstanceByDom(arguments[0]).getOption().yAxis[0].data"
    assert "ipa" in until(page, names, canvas)
    page.execute_script("document.querySelector('#figure-methods input[value=ipa]').click()")
    until(page, f"!{names}.includes('ipa')", canvas)


def test_values_stand_in_a_table_too(page):
    panel(page, "win-rates")
    page.execute_script("document.querySelector('[data-figure=win-rates] details.values').open = true")
    until(page, "document.querySelectorAll('[data-figure=win-rates] table tbody tr').length")
    text = page.find_element("css selector", "[data-figure=win-rates] table").text
    assert EVIL in text and "clips of 12 people" in text


# Gallery


def gallery(page):
    page.execute_script("document.getElementById('gallery').scrollIntoView()")
    until(page, f"{VIDEOS}.length >= 2 && {VIDEOS}.every(v => v.readyState >= 2 && v.currentTime > 0 && !v.seeking)")
    until(page, "document.querySelector('.transport .time').textContent")
    page.execute_script("document.getElementById('gallery-player').focus()")


def frame(page):
    return int(page.execute_script("return document.querySelector('.transport .time').textContent").split("/")[0])


def test_the_worst_clip_is_shown_first_with_its_scores_and_who_lacks_it(page):
    gallery(page)
    worst = page.execute_script("return halign.data('gallery').then(g => g.clips[0].id)")
    assert page.find_element("id", "gallery-clip").text.startswith(worst)
    assert page.find_elements("css selector", "button.clip")[0].text == worst
    tiles = {tile.text.split("\n")[0]: tile.text for tile in page.find_elements("css selector", ".tile")}
    assert next(iter(tiles)) == "real clip" and "no video of this clip" in tiles["sft"] and EVIL in tiles
    chooser = page.find_element("css selector", "#gallery-player details")
    chooser.find_element("css selector", "summary").click()
    assert "cannot be loaded: <b>gone</b>" in chooser.text
    assert page.find_element("css selector", "table.scores").text.count("\n") >= 5


def play(page):
    page.execute_script("document.querySelector('.transport button[aria-label^=Play]').click()")


def pause(page):
    page.execute_script("document.querySelector('.transport button[aria-label^=Pause]').click()")
    until(page, f"{VIDEOS}.every(v => v.paused && !v.seeking)")


def clocks(page, seconds):
    """For every picture that the page draws while all play: where each video is, in seconds before or after now.

    Now is taken anew for each video: what passes between two readings is no drift.
    """
    return page.execute_async_script(
        """
        const [length, done] = arguments, videos = [...document.querySelectorAll('#gallery-player video')];
        const start = performance.now(), readings = [];
        const look = () => {
            if (videos.every(video => !video.paused && !video.seeking && !video.ended)) {
                readings.push(videos.map(video => video.currentTime - performance.now() / 1000));
            }
            if (performance.now() - start < 1000 * length) requestAnimationFrame(look);
            else done(readings);
        };
        look();
        """, seconds,
    )  # fmt: skip


def test_videos_of_several_methods_play_in_sync(page):
    """Over three rounds, from the first moment in which all play: never a frame between any two of them."""
    gallery(page)
    play(page)
    readings = clocks(page, 3 * FRAMES / FPS)
    drifts = [max(times) - min(times) for times in readings]
    assert len(readings[0]) >= 4 and len(drifts) > 30
    print(f"drift of {len(readings[0])} videos in {len(drifts)} readings: at most {1000 * max(drifts):.1f} ms")
    assert max(drifts) < 1 / FPS
    pause(page)
    times = page.execute_script(f"return {VIDEOS}.map(v => v.currentTime)")
    assert max(times) - min(times) < 1e-3  # stopped, all on the very same frame


def shown(page):
    """The frame that each video shows, all in one picture of the page: a page may not read videos from disk."""
    boxes = page.execute_script("""return [...document.querySelectorAll('#gallery-player .frame')].map(tile => {
        const box = tile.getBoundingClientRect();
        return [box.x, box.y, box.width, box.height].map(Math.round);
    })""")
    taken = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    with Image.open(io.BytesIO(base64.b64decode(taken["data"]))) as image:
        grey = np.asarray(image.convert("L"))
    inside = [(x, y, w, h) for x, y, w, h in boxes if y >= 0 and y + h <= len(grey)]
    assert len(inside) >= 3
    return [frame_in(grey[y : y + h, x : x + w]) for x, y, w, h in inside]


def test_pictures_on_the_screen_are_of_the_same_frame(page):
    """While all play: where a round begins anew, the first to arrive wait on its first frame for the rest."""
    gallery(page)
    page.execute_script("document.querySelector('.tiles').scrollIntoView({ block: 'center' })")
    page.execute_script(f"""
        window.seeks = 0;
        {VIDEOS}.forEach(video => video.addEventListener('seeking', () => {{ window.seeks += 1; }}));
    """)
    play(page)
    until(page, f"{VIDEOS}.every(v => !v.paused && !v.seeking && v.currentTime > 0.1)")
    taken = []
    for _ in range(40):
        seeks = page.execute_script("return window.seeks")
        frames = shown(page)
        if page.execute_script(f"return window.seeks === {seeks} && {VIDEOS}.every(v => !v.paused && !v.seeking)"):
            taken.append(frames)
    print("frames on the screen", taken)
    assert len(taken) >= 20 and len({frames[0] for frames in taken}) > 5  # they play, seldom anew
    assert max(max(frames) - min(frames) for frames in taken) <= 1
    pause(page)
    assert len(set(shown(page))) == 1


@pytest.mark.parametrize("fault", ["video.currentTime = 0", "video.pause()"])
def test_all_wait_for_one_that_falls_behind(page, fault):
    """It is thrown back or stopped in the middle of a round, and before that round ends all play together again."""
    gallery(page)
    play(page)
    readings = page.execute_async_script(f"""
        const done = arguments[0], videos = {VIDEOS}, video = videos[1], readings = [];
        const look = () => {{
            const at = videos[0].currentTime;
            if (readings.length === 0 && at > 0.4 && at < 0.8) {{ {fault}; readings.push([at, false, 0]); }}
            else if (readings.length) {{
                const ends = videos.map(one => one.currentTime - performance.now() / 1000);
                const play = videos.every(one => !one.paused && !one.seeking);
                readings.push([at, play, Math.max(...ends) - Math.min(...ends)]);
            }}
            if (readings.length && (at > 1.8 || at < readings[0][0] - 0.1)) done(readings);
            else requestAnimationFrame(look);
        }};
        look();
    """)
    apart = [number for number, (_, playing, drift) in enumerate(readings) if not playing or drift >= 1 / FPS]
    together = readings[apart[-1] + 1 :]
    assert len(together) > 5 and readings[-1][0] > 1.8  # in the same round still
    print(f"together again {together[0][0] - readings[0][0]:.2f} s later")


HEAR = """
    window.heard = [];
    const start = AudioBufferSourceNode.prototype.start;
    AudioBufferSourceNode.prototype.start = function (when, offset) {
        const samples = this.buffer.getChannelData(0), latency = this.context.outputLatency;
        const loud = Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
        const at = document.querySelector('#gallery-player video').currentTime;
        window.heard.push({ late: offset - latency - at, when, loud, seconds: this.buffer.duration });
        return start.call(this, when, offset);
    };
"""


def test_the_sound_is_the_clips_and_starts_where_the_pictures_are(page):
    gallery(page)
    page.execute_script(HEAR)
    play(page)
    rounds = until(page, "window.heard.length >= 3 && window.heard")
    for sound in rounds:  # a sine of a quarter
        assert sound["seconds"] == pytest.approx(FRAMES / FPS)
        assert sound["loud"] == pytest.approx(0.25 / 2**0.5, rel=1e-2)
        assert sound["when"] == 0 and abs(sound["late"]) < 1 / FPS / 2
    assert page.execute_script(f"return {VIDEOS}.every(v => v.muted)")  # it is the only sound


def test_the_player_is_used_by_keys_alone(page):
    gallery(page)
    assert frame(page) == 1
    press(page, "\ue014\ue014\ue012")  # Right, Right, Left
    until(page, "document.querySelector('.transport .time').textContent.startsWith('2/')")
    press(page, "\ue010")  # End
    until(page, f"document.querySelector('.transport .time').textContent.startsWith('{FRAMES}/')")
    press(page, "\ue011")  # Home
    until(page, "document.querySelector('.transport .time').textContent.startsWith('1/')")
    press(page, " ")
    until(page, f"{VIDEOS}.every(v => !v.paused)")
    press(page, " ")
    until(page, f"{VIDEOS}.every(v => v.paused)")
    for key, label in (("l", "Loop"), ("m", "Sound"), ("s", "Skeleton")):
        pressed = f"document.querySelector('.transport button[aria-label^={label}]').getAttribute('aria-pressed')"
        before = until(page, pressed)
        press(page, key)
        assert until(page, pressed) != before, label
    first = page.find_element("id", "gallery-clip").text
    press(page, "n")
    until(page, "document.getElementById('gallery-clip').textContent !== arguments[0]", first)
    press(page, "p")
    until(page, "document.getElementById('gallery-clip').textContent === arguments[0]", first)


def test_a_step_shows_the_frame_that_it_names(page):
    """What is drawn, not what is said."""
    gallery(page)
    press(page, *["\ue014"] * 24)
    until(page, "document.querySelector('.transport .time').textContent.startsWith('25/')")
    until(page, f"{VIDEOS}.every(v => !v.seeking)")
    page.execute_script("document.querySelector('.tiles').scrollIntoView({ block: 'center' })")
    assert set(shown(page)) == {24}


def test_the_skeleton_is_drawn_over_the_videos_and_taken_away_again(page):
    gallery(page)
    drawn = """(() => {
        const canvas = document.querySelector('.tile canvas');
        return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
    })()"""
    assert not page.execute_script(f"return {drawn}")
    press(page, "s")
    until(page, drawn)
    press(page, "s")
    until(page, f"!{drawn}")


def test_methods_come_and_go_in_the_gallery(page):
    gallery(page)
    count = page.execute_script("return document.querySelectorAll('.tile').length")
    page.find_element("css selector", "#gallery-player summary").click()
    labels = page.find_elements("css selector", "#gallery-player fieldset label")
    next(label for label in labels if label.text.strip() == "base").click()
    until(page, "document.querySelectorAll('.tile').length === arguments[0]", count - 1)
    assert all("base" not in tile.text.split("\n")[0] for tile in page.find_elements("css selector", ".tile"))


def test_clips_without_video_show_their_scores_alone(page):
    gallery(page)
    assert page.find_element("css selector", "#gallery-clips .dt-info").text == f"1 to 12 of {len(IDS)} clips"
    without = "halign.data('gallery').then(g => g.clips.find(c => c.video === null).id)"
    last = page.execute_script(f"return {without}")
    search(page, "#gallery-clips", last)
    until(page, "document.querySelector('button.clip').textContent === arguments[0]", last)
    page.find_element("css selector", "button.clip").click()
    until(page, "document.querySelector('.tiles').textContent.includes('No video of this clip')")
    assert page.find_elements("css selector", "table.scores tbody tr")


# For everybody


@pytest.mark.parametrize("light_or_dark", ["light", "dark"])
def test_axe_finds_nothing_serious(page, light_or_dark):
    scheme(page, light_or_dark)
    for name in ("quality-nfe", "pareto", "win-rates"):
        panel(page, name)
    page.execute_script("document.querySelector('[data-figure=win-rates] details.values').open = true")
    gallery(page)
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    page.execute_script(AXE.read_text())
    found = page.execute_async_script("""
        const done = arguments[0], only = { resultTypes: ['violations'], preload: false };
        axe.run(document, only).then(result => done(result.violations.map(one => (
            { id: one.id, impact: one.impact, nodes: one.nodes.map(node => node.html.slice(0, 200)).slice(0, 3) }
        ))), problem => done([{ id: String(problem), impact: 'critical' }]));
    """)
    assert [one for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_page_is_as_wide_as_a_phone_and_dark_where_that_is_wanted(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.execute_script(f"return {colour}")
    scheme(page, "dark")
    until(page, f"{colour} !== arguments[0] && document.documentElement.classList.contains('dark')", light)


def test_without_scripts_the_tables_are_there(window, address):
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        window.get(address)
        assert "diffusion-dpo" in window.find_element("id", "leaderboard-table").text
        assert "supported" in window.find_element("id", "claims").text
    finally:
        window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
