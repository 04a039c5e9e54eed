// The gallery: a table of clips, and beside it the chosen clip, as each method made it.
"use strict";

(() => {
  const { data, element, number, tile, transport, whenNear } = halign;
  const FEW = 5; // methods shown at first, beside the real clip
  const REAL = "real clip";

  const region = document.getElementById("gallery-player");
  const list = document.getElementById("gallery-clips");
  if (region !== null) whenNear(list, async () => open(await data("gallery")));

  function open(gallery) {
    const filmed = gallery.clips.filter((clip) => clip.video !== null);
    const playable = gallery.methods.filter((method) => !method.absent);
    const shown = new Set(playable.slice(0, FEW).map((method) => method.name));
    let tiles = [];
    let bones = null;
    let player = null;
    let current = filmed[0] ?? gallery.clips[0];
    const controls = transport({
      play: () => (player?.playing ? player.pause() : player?.play()),
      step: (frames) => player?.step(frames),
      seek: (frame) => { player?.stop(); player?.seek(frame); },
      loop: (on) => { if (player) player.loop = on; },
      sound: (on) => player?.mute(!on),
      skeleton: () => draw(),
      speed: (times) => player?.speed(times),
      clip: (step) => neighbour(step),
    });
    const methods = chooser();
    const heading = element("h3", { id: "gallery-clip" });
    const about = element("p", { className: "caption" });
    const stage = element("div", { className: "tiles" });
    const scores = element("div", {
      className: "wide", tabIndex: 0, role: "region", "aria-label": "Scores of this clip",
    });
    region.append(heading, about, controls.bar, methods, stage, scores);
    region.setAttribute("aria-keyshortcuts", "Space ArrowLeft ArrowRight Home End L M S N P");
    region.addEventListener("keydown", controls.keys);
    document.addEventListener("visibilitychange", () => { // a browser may stop some of them then
      if (document.hidden && player?.playing) player.pause();
    });
    const table = clips();
    region.hidden = false;
    choose(current);

    // The clips, the worst first; those with videos before the others.
    function clips() {
      const made = element("table", { className: "row-border compact hover" },
        element("caption", { className: "said" }, "Clips, the worst first"));
      list.append(made);
      // Escaped for display and for the filter too, which decodes what looks like an entity as markup.
      const text = DataTable.render.text();
      const button = (clip) => {
        const one = element("button", {
          type: "button", className: "clip", textContent: clip.id, "aria-current": String(clip === current),
        });
        one.addEventListener("click", () => { choose(clip); region.focus(); });
        return one;
      };
      const short = (value, kind) => (kind === "display" ? value.toFixed(2) : value);
      return new DataTable(made, {
        data: gallery.clips, autoWidth: false, order: [[4, "desc"], [2, "asc"]], pageLength: 12, deferRender: true,
        language: {
          search: "Filter clips", info: "_START_ to _END_ of _TOTAL_ clips", infoEmpty: "no clips", infoFiltered: "",
        },
        layout: {
          topStart: null, topEnd: "search", bottomStart: "info",
          bottomEnd: { paging: { buttons: 5, firstLast: false } },
        },
        columns: [
          {
            title: "clip", data: "id", type: "string",
            render: (id, kind, clip) => (kind === "display" ? button(clip) : kind === "filter" ? text.filter(id) : id),
          },
          { title: "person", data: "identity", type: "string", render: text, visible: false },
          { title: "rank", data: "rank", render: short },
          { title: "spread", data: "spread", render: short },
          { title: "video", data: "video", visible: filmed.length > 0, render: (video) => (video ? "yes" : "no") },
        ],
      });
    }

    function chooser() {
      const title = element("summary");
      const told = () => { title.textContent = `Methods shown: ${shown.size} of ${gallery.methods.length}`; };
      const box = (method) => {
        const made = element("input", {
          type: "checkbox", checked: shown.has(method.name), disabled: Boolean(method.absent),
        });
        made.addEventListener("change", () => {
          if (made.checked) shown.add(method.name);
          else shown.delete(method.name);
          told();
          choose(current, player?.frame);
        });
        return element("label", {}, made, ` ${method.name}${method.absent ? ` (no videos: ${method.absent})` : ""}`);
      };
      told();
      const legend = element("legend", { className: "said" }, "Methods shown");
      return element("details", {}, title,
        element("fieldset", { className: "methods" }, legend, ...gallery.methods.map(box)));
    }

    // Everything of one clip. Methods without a video of it have a tile that says so.
    async function choose(clip, frame = 0) {
      const wasPlaying = player?.playing ?? false;
      player?.stop();
      player = bones = null;
      for (const one of tiles) one.close();
      current = clip;
      heading.textContent = clip.id;
      about.textContent = `person ${clip.identity}, mean rank ${clip.rank.toFixed(2)}, `
        + `spread over methods ${clip.spread.toFixed(2)}`;
      for (const button of list.querySelectorAll("button.clip")) {
        button.setAttribute("aria-current", String(button.textContent === clip.id));
      }
      scores.replaceChildren(scoreTable(clip));
      tiles = clip.video ? tilesOf(clip) : [];
      stage.replaceChildren(...tiles.map((one) => one.figure));
      controls.bar.hidden = !clip.video;
      methods.hidden = !filmed.length;
      if (clip.video) await film(clip, frame, wasPlaying);
      else stage.replaceChildren(element("p", {}, "No video of this clip was made."));
    }

    function tilesOf(clip) {
      const file = (index) => (clip.video.methods.includes(index) ? `m${String(index).padStart(2, "0")}.mp4` : null);
      return [
        tile(clip, REAL, "real.mp4", gallery.fps),
        ...gallery.methods.flatMap(({ name, absent }, index) => (
          shown.has(name) ? [tile(clip, name, file(index), gallery.fps, absent)] : []
        )),
      ];
    }

    async function film(clip, frame, play) {
      const { folder, frames, sound, skeleton } = clip.video;
      const mine = tiles;
      const side = (wanted, name) => (wanted ? data(`${folder}/${name}`, "") : null);
      controls.offer(frames, sound, skeleton);
      const [heard, drawn] = await Promise.all([
        side(sound, "sound"), side(skeleton, "skeleton"), ...mine.map(loaded),
      ]);
      if (mine !== tiles) return;
      bones = drawn;
      const { state } = controls;
      player = new halign.Player(gallery.fps, frames, heard && new halign.Sound(heard), (at, playing) => (
        controls.tell(at, frames, gallery.fps, playing)
      ));
      player.loop = state.loop;
      player.rate = state.speed;
      player.mute(!state.sound);
      const playing = player;
      await playing.show(mine.filter((one) => one.video && !one.video.error).map((one) => one.video), frame);
      if (playing !== player) return;
      draw();
      if (play) player.play();
    }

    function draw() {
      for (const one of tiles) {
        one.bones = controls.state.skeleton ? bones : null;
        one.show();
      }
    }

    // Every method's scores on this clip; the best of a score is bold.
    function scoreTable(clip) {
      const best = gallery.scores.map((score, i) => {
        const known = clip.values.map((values) => values[i]).filter((value) => value !== null);
        if (!known.length || score.better === null) return null;
        return score.better ? Math.max(...known) : Math.min(...known);
      });
      const head = ({ name, where, unit }) => (
        element("th", { scope: "col", title: unit }, `${name} `, element("span", { className: "where" }, where))
      );
      const cell = (value, i) => (
        element("td", value !== null && value === best[i] ? { className: "place1" } : {}, number(value))
      );
      const row = (method, m) => (
        element("tr", {}, element("th", { scope: "row" }, method.name), ...clip.values[m].map(cell))
      );
      return element("table", { className: "scores" },
        element("caption", {}, "Scores of these very samples; bold: the best of the methods on this clip"),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "method"), ...gallery.scores.map(head))),
        element("tbody", {}, ...gallery.methods.map(row)));
    }

    function neighbour(step) {
      const rows = table.rows({ search: "applied", order: "applied" }).data().toArray();
      const clip = rows[(rows.indexOf(current) + step + rows.length) % rows.length];
      if (clip) choose(clip);
    }
  }

  const loaded = ({ video }) => new Promise((resolve) => {
    if (video === null || video.readyState >= 2) { resolve(); return; }
    video.addEventListener("loadeddata", resolve, { once: true });
    video.addEventListener("error", resolve, { once: true });
  });
})();
