// The player's buttons and keys. What they do is said by whoever makes it.
"use strict";

halign.transport = (() => {
  const { element, svg } = halign;
  const SPEEDS = [1, 0.5, 0.25];
  const ICONS = {
    back: "M2,2H4V14H2ZM14,2V14L5,8Z", forth: "M12,2H14V14H12ZM2,2V14L11,8Z", play: "M3,1V15L14,8Z",
    pause: "M3,2H7V14H3ZM9,2H13V14H9Z",
  };

  function icon(name) {
    const picture = svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" });
    picture.append(svg("path", { d: ICONS[name] }));
    return picture;
  }

  // acts  play(), step(frames), seek(frame), loop(on), sound(on), skeleton(on), speed(times), clip(step)
  function transport(acts) {
    const bar = element("div", { className: "transport", role: "group", "aria-label": "Playback" });

    function button(content, label, act) {
      const made = element("button", { type: "button", "aria-label": label, title: label }, content);
      made.addEventListener("click", act);
      bar.append(made);
      return made;
    }

    function toggle(text, label, act, pressed) {
      const made = button(text, label, () => {
        const now = made.getAttribute("aria-pressed") !== "true";
        made.setAttribute("aria-pressed", String(now));
        act(now);
      });
      made.setAttribute("aria-pressed", String(pressed));
      return made;
    }

    button(icon("back"), "One frame back (Left)", () => acts.step(-1));
    const play = button(icon("play"), "Play (Space)", () => acts.play());
    button(icon("forth"), "One frame on (Right)", () => acts.step(1));
    const seek = element("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Frame" });
    const time = element("span", { className: "time" });
    seek.addEventListener("input", () => acts.seek(Number(seek.value)));
    bar.append(seek, time);
    const loop = toggle("Loop", "Loop (L)", acts.loop, true);
    const sound = toggle("Sound", "Sound (M)", acts.sound, true);
    const skeleton = toggle("Skeleton", "Skeleton (S)", acts.skeleton, false);
    const speed = element("select", { "aria-label": "Speed" },
      ...SPEEDS.map((times) => element("option", { value: times }, `${times}×`)));
    speed.addEventListener("change", () => acts.speed(Number(speed.value)));
    bar.append(speed);
    const on = (made) => made.getAttribute("aria-pressed") === "true";
    let said = "";

    return {
      bar,
      get state() {
        return { loop: on(loop), sound: on(sound), skeleton: on(skeleton), speed: Number(speed.value) };
      },
      // What this clip has.
      offer(frames, hasSound, hasSkeleton) {
        seek.max = frames - 1;
        sound.disabled = !hasSound;
        sound.title = hasSound ? "Sound (M)" : "This clip has no sound";
        skeleton.disabled = !hasSkeleton;
        skeleton.title = hasSkeleton ? "Skeleton (S)" : "This clip has no skeleton";
      },
      tell(frame, frames, fps, playing) {
        const text = `${frame + 1}/${frames} · ${(frame / fps).toFixed(2)} s`;
        if (said === text + playing) return;
        said = text + playing;
        const label = playing ? "Pause (Space)" : "Play (Space)";
        if (play.title !== label) {
          play.replaceChildren(icon(playing ? "pause" : "play"));
          play.setAttribute("aria-label", label);
          play.title = label;
        }
        seek.value = frame;
        seek.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}`);
        time.textContent = text;
      },
      keys(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const typing = event.target.matches("select, input:not([type=checkbox])");
        const pressing = event.target.matches("button, input, select, summary");
        const act = {
          " ": acts.play, k: acts.play, l: () => loop.click(), m: () => sound.click(), s: () => skeleton.click(),
          n: () => acts.clip(1), p: () => acts.clip(-1), ArrowLeft: () => acts.step(-1), ArrowRight: () => acts.step(1),
          Home: () => acts.seek(0), End: () => acts.seek(Number(seek.max)),
        }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
        if (!act || typing || (event.key === " " && pressing)) return;
        event.preventDefault();
        act();
      },
    };
  }

  return transport;
})();
