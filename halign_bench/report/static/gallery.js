// The gallery: a table of clips, and the chosen clip's videos of several methods on one clock.
"use strict";

(() => {
  const { data, element, number, svg, url, whenNear } = halign;
  const FEW = 6; // methods shown at first
  const SPEEDS = [1, 0.5, 0.25];
  const REAL = "real clip";
  const ICONS = {
    back: "M2,2H4V14H2ZM14,2V14L5,8Z", forth: "M12,2H14V14H12ZM2,2V14L11,8Z", play: "M3,1V15L14,8Z",
    pause: "M3,2H7V14H3ZM9,2H13V14H9Z",
  };

  const region = document.getElementById("gallery-player");
  const list = document.getElementById("gallery-clips");
  if (region !== null) whenNear(list, async () => open(await data("gallery")));

  function open(gallery) {
    const filmed = gallery.clips.filter((clip) => clip.video !== null);
    const shown = new Set(gallery.methods.filter((method) => !method.absent).slice(0, FEW).map((method) => method.name));
    let tiles = [];
    let player = null;
    let current = null;
    const controls = transport();
    const methods = chooser();
    const heading = element("h3", { id: "gallery-clip" });
    const stage = element("div", { className: "tiles" });
    const scores = element("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "Scores of this clip" });
    region.append(heading, controls.bar, methods, stage, scores);
    region.tabIndex = 0;
    region.setAttribute("aria-keyshortcuts", "Space ArrowLeft ArrowRight Home End L M S N P");
    region.addEventListener("keydown", keys);
    const table = clips();
    region.hidden = false;
    choose(filmed[0] ?? gallery.clips[0]);

    // The clips, the worst first; those with videos before the others.
    function clips() {
      const made = element("table", { className: "row-border compact hover" },
        element("caption", { className: "said" }, "Clips, the worst first"));
      list.append(made);
      // Escaped for display and for the filter too, which decodes what looks like an entity as markup.
      const text = DataTable.render.text();
      const button = (clip) => {
        const one = element("button", { type: "button", className: "clip", textContent: clip.id });
        one.addEventListener("click", () => { choose(clip); region.focus(); });
        return one;
      };
      return new DataTable(made, {
        data: gallery.clips, autoWidth: false, order: [[4, "desc"], [2, "asc"]], pageLength: 8, deferRender: true,
        language: { search: "Filter clips" },
        layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
        columns: [
          {
            title: "clip", data: "id", type: "string",
            render: (id, kind, clip) => (kind === "display" ? button(clip) : kind === "filter" ? text.filter(id) : id),
          },
          { title: "person", data: "identity", type: "string", render: text },
          { title: "mean rank", data: "rank", render: (rank, kind) => (kind === "display" ? rank.toFixed(2) : rank) },
          { title: "spread over methods", data: "spread", render: (spread, kind) => (kind === "display" ? spread.toFixed(2) : spread) },
          { title: "video", data: "video", visible: filmed.length > 0, render: (video) => (video ? "yes" : "no") },
        ],
      });
    }

    function chooser() {
      const fieldset = element("fieldset", { className: "methods" }, element("legend", {}, "Methods shown"));
      for (const method of gallery.methods) {
        const box = element("input", { type: "checkbox", checked: shown.has(method.name), disabled: Boolean(method.absent) });
        box.addEventListener("change", () => {
          if (box.checked) shown.add(method.name);
          else shown.delete(method.name);
          choose(current, player?.frame);
        });
        const why = method.absent ? ` (no videos: ${method.absent})` : "";
        fieldset.append(element("label", {}, box, ` ${method.name}${why}`));
      }
      return fieldset;
    }

    function transport() {
      const bar = element("div", { className: "transport", role: "toolbar", "aria-label": "Playback" });
      const button = (text, label, act) => {
        const made = element("button", { type: "button", "aria-label": label, title: label }, text in ICONS ? icon(text) : text);
        made.addEventListener("click", act);
        bar.append(made);
        return made;
      };
      const toggle = (text, label, act, pressed) => {
        const made = button(text, label, () => {
          const now = made.getAttribute("aria-pressed") !== "true";
          made.setAttribute("aria-pressed", String(now));
          act(now);
        });
        made.setAttribute("aria-pressed", String(pressed));
        return made;
      };
      const made = {
        bar,
        back: button("back", "One frame back (Left)", () => player?.step(-1)),
        play: button("play", "Play (Space)", () => toggled()),
        forth: button("forth", "One frame on (Right)", () => player?.step(1)),
        seek: element("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Frame" }),
        time: element("output", { className: "time" }),
      };
      bar.append(made.seek, made.time);
      made.seek.addEventListener("input", () => { player?.stop(); player?.seek(Number(made.seek.value)); });
      made.loop = toggle("Loop", "Loop (L)", (now) => { if (player) player.loop = now; }, true);
      made.mute = toggle("Sound", "Sound (M)", (now) => player?.mute(!now), true);
      made.skeleton = toggle("Skeleton", "Skeleton (S)", () => draw(), false);
      made.speed = element("select", { "aria-label": "Speed" }, ...SPEEDS.map((speed) => element("option", { value: speed }, `${speed}×`)));
      made.speed.addEventListener("change", () => player?.speed(Number(made.speed.value)));
      made.heard = element("select", { "aria-label": "Sound of" });
      made.heard.addEventListener("change", () => player?.sound(tiles.find((tile) => tile.name === made.heard.value)?.video));
      bar.append(made.speed, made.heard);
      return made;
    }

    function toggled() {
      if (!player) return;
      if (player.playing) player.pause();
      else player.play();
    }

    // Everything of one clip. Methods without a video of it have a tile that says so.
    async function choose(clip, frame = 0) {
      const wasPlaying = player?.playing ?? false;
      player?.stop();
      current = clip;
      heading.textContent = `${clip.id} (person ${clip.identity}), mean rank ${clip.rank.toFixed(2)}`;
      for (const button of list.querySelectorAll("button.clip")) {
        button.setAttribute("aria-current", String(button.textContent === clip.id));
      }
      scores.replaceChildren(scoreTable(clip));
      const wanted = gallery.methods.map((method, index) => ({ ...method, index })).filter((method) => shown.has(method.name));
      tiles = clip.video ? [
        tile(clip, REAL, "real.mp4"),
        ...wanted.map((method) => tile(clip, method.name, clip.video.methods.includes(method.index)
          ? `m${String(method.index).padStart(2, "0")}.mp4` : null, method.absent)),
      ] : [];
      stage.replaceChildren(...tiles.map((one) => one.figure));
      controls.bar.hidden = !clip.video;
      methods.hidden = !filmed.length;
      if (!clip.video) {
        stage.replaceChildren(element("p", {}, "No video of this clip was made."));
        player = null;
        return;
      }
      prepare(clip);
      const playing = player;
      await loaded(tiles);
      if (playing !== player) return;
      await player.show(tiles.filter((one) => one.video && !one.video.error).map((one) => one.video), frame);
      if (wasPlaying && playing === player) player.play();
    }

    function prepare(clip) {
      const { frames, sound, skeleton } = clip.video;
      player = new halign.Player(gallery.fps, frames, told);
      player.loop = controls.loop.getAttribute("aria-pressed") === "true";
      player.rate = Number(controls.speed.value);
      player.muted = controls.mute.getAttribute("aria-pressed") !== "true";
      controls.seek.max = frames - 1;
      controls.mute.disabled = controls.heard.disabled = !sound;
      controls.mute.title = sound ? "Sound (M)" : "This clip has no sound";
      controls.skeleton.disabled = !skeleton;
      controls.skeleton.title = skeleton ? "Skeleton (S)" : "This clip has no skeleton";
      controls.heard.replaceChildren(...tiles.filter((one) => one.video).map((one) => element("option", { value: one.name }, `sound of ${one.name}`)));
      if (skeleton) {
        data(`${clip.video.folder}/skeleton`, "").then((bones) => {
          if (current !== clip) return;
          for (const one of tiles) one.bones = bones;
          draw();
        });
      }
    }

    function told(frame, playing) {
      const label = playing ? "Pause (Space)" : "Play (Space)";
      controls.play.replaceChildren(icon(playing ? "pause" : "play"));
      controls.play.setAttribute("aria-label", label);
      controls.play.title = label;
      controls.seek.value = frame;
      const frames = current.video.frames;
      controls.seek.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}`);
      controls.time.textContent = `${frame + 1}/${frames} · ${(frame / gallery.fps).toFixed(2)} s`;
      draw(frame);
    }

    function tile(clip, name, file, absent) {
      const caption = element("figcaption", {}, name);
      if (file === null) {
        const why = element("p", { className: "absent" }, absent ?? "no video of this clip");
        return { name, figure: element("figure", { className: "tile" }, caption, why), video: null };
      }
      const video = element("video", {
        src: url(`${clip.video.folder}/${file}`), preload: "auto", playsInline: true, muted: true,
        disablePictureInPicture: true, "aria-label": `${clip.id}, ${name}`,
      });
      const canvas = element("canvas", { width: clip.video.width * 4, height: clip.video.height * 4, "aria-hidden": "true" });
      const frame = element("div", { className: "frame" }, video, canvas);
      frame.style.aspectRatio = `${clip.video.width} / ${clip.video.height}`;
      const figure = element("figure", { className: "tile" }, caption, frame);
      video.addEventListener("error", () => figure.append(element("p", { className: "absent" }, "this video cannot be played here")));
      return { name, figure, video, canvas, bones: null };
    }

    // The bones of this frame over each video: what was asked for, the same for all methods.
    function draw(frame = player?.frame ?? 0) {
      const wanted = controls.skeleton.getAttribute("aria-pressed") === "true";
      for (const one of tiles) {
        if (!one.canvas) continue;
        const pen = one.canvas.getContext("2d");
        pen.clearRect(0, 0, one.canvas.width, one.canvas.height);
        const points = wanted && one.bones?.points[frame];
        if (!points) continue;
        pen.lineWidth = one.canvas.height / 90;
        pen.lineCap = "round";
        for (const [i, [from, to]] of one.bones.edges.entries()) {
          if (!points[from] || !points[to]) continue;
          pen.strokeStyle = one.bones.colours[i];
          pen.beginPath();
          pen.moveTo(points[from][0] * one.canvas.width, points[from][1] * one.canvas.height);
          pen.lineTo(points[to][0] * one.canvas.width, points[to][1] * one.canvas.height);
          pen.stroke();
        }
      }
    }

    // Every method's scores on this clip; the best of a score is bold.
    function scoreTable(clip) {
      const best = gallery.scores.map((score, i) => {
        const known = clip.values.map((values) => values[i]).filter((value) => value !== null);
        if (!known.length || score.better === null) return null;
        return score.better ? Math.max(...known) : Math.min(...known);
      });
      const row = (method, m) => element("tr", {}, element("th", { scope: "row" }, method.name),
        ...clip.values[m].map((value, i) => element("td", value !== null && value === best[i] ? { className: "place1" } : {}, number(value))));
      return element("table", { className: "scores" },
        element("caption", {}, "Scores of these very samples; bold: the best of the methods on this clip"),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "method"),
          ...gallery.scores.map((score) => element("th", { scope: "col", title: score.unit }, score.name)))),
        element("tbody", {}, ...gallery.methods.map(row)));
    }

    function neighbour(step) {
      const rows = table.rows({ search: "applied", order: "applied" }).data().toArray();
      const clip = rows[(rows.indexOf(current) + step + rows.length) % rows.length];
      if (clip) choose(clip);
    }

    function keys(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.matches("select, input:not([type=checkbox])");
      const pressing = event.target.matches("button, input, select, summary");
      const act = {
        " ": () => toggled(), k: () => toggled(), l: () => controls.loop.click(), m: () => controls.mute.click(),
        s: () => controls.skeleton.click(), n: () => neighbour(1), p: () => neighbour(-1),
        ArrowLeft: () => player?.step(-1), ArrowRight: () => player?.step(1),
        Home: () => player?.step(-player.frame), End: () => player?.step(player.frames - 1 - player.frame),
      }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act || typing || (event.key === " " && pressing)) return;
      event.preventDefault();
      act();
    }
  }

  function icon(name) {
    const picture = svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" });
    picture.append(svg("path", { d: ICONS[name] }));
    return picture;
  }

  const loaded = (tiles) => Promise.all(tiles.filter((one) => one.video).map(({ video }) => new Promise((resolve) => {
    if (video.readyState >= 2) { resolve(); return; }
    video.addEventListener("loadeddata", resolve, { once: true });
    video.addEventListener("error", resolve, { once: true });
  })));
})();
