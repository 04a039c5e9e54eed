"use strict";
// The server says which question is next; this page shows it and sends the answer. It decides nothing itself.

const at = (id) => document.getElementById(id);
const SIDES = [[1, "1 is better", "1"], [2, "2 is better", "2"], [0, "Tie", "t"]];
let state = null;
let asked = 0; // when the question was shown, in ms
let busy = false; // an answer is on its way

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function say(text) { at("said").textContent = text; }

async function ask(place, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(place, options);
  const found = await reply.json();
  if (!reply.ok && found.questions === undefined) throw new Error(found.error);
  return found;
}

async function update(place, body, said) {
  if (busy) return; // a key pressed meanwhile would answer a question that nobody has seen
  busy = true;
  try {
    show(await ask(place, body), said);
    at("error").textContent = "";
  } catch (problem) {
    const lost = problem instanceof TypeError;
    at("error").textContent = lost
      ? "The command does not answer: start it again, and open the address that it prints. All answers are kept."
      : `Not kept: ${problem.message}`;
  } finally {
    busy = false;
  }
}

function show(found, said) {
  state = found;
  asked = performance.now();
  const left = state.seconds_left ? `, about ${duration(state.seconds_left)} left` : "";
  at("annotator").textContent = state.annotator;
  at("done").max = Math.max(state.questions, 1);
  at("done").value = state.answered;
  at("progress").textContent = `${state.answered} of ${state.questions} answers${left}`;
  at("undo").disabled = !state.can_undo;
  const next = state.next;
  at("work").hidden = next === null;
  at("finished").hidden = next !== null;
  load(next === null ? null : next.pair);
  if (next === null) {
    at("finished").focus();
    say("");
    return;
  }
  drawCriteria(next);
  say(`${said ? said + " " : ""}Pair ${next.pair + 1} of ${state.pairs}: ${next.criterion}?`);
}

function drawCriteria(next) {
  const inside = at("criteria").contains(document.activeElement);
  at("criteria").replaceChildren(...state.criteria.map((criterion) => {
    const set = document.createElement("fieldset");
    const current = criterion === next.criterion;
    const legend = document.createElement("legend");
    legend.textContent = criterion;
    set.disabled = !current;
    if (current) set.setAttribute("aria-current", "step");
    set.append(legend, ...SIDES.map(([side, text, key]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.side = side;
      button.textContent = text;
      button.setAttribute("aria-pressed", String(next.given[criterion] === side));
      if (current) {
        const shortcut = document.createElement("kbd");
        shortcut.textContent = key;
        button.append(" ", shortcut);
        button.setAttribute("aria-keyshortcuts", key);
        button.addEventListener("click", () => answer(side));
      }
      return button;
    }));
    return set;
  }));
  // Whoever answers by Tab and Enter stays in the row of buttons.
  if (inside) document.querySelector("fieldset[aria-current] button").focus();
}

function answer(side) {
  if (state === null || state.next === null) return;
  if (!loaded) return say("The videos are not there yet.");
  const seconds = (performance.now() - asked) / 1000;
  const { pair, criterion } = state.next;
  update("answer", { pair, criterion, side, seconds }, `${criterion}: ${SIDES.find(([s]) => s === side)[1]}.`);
}

function undo() {
  if (state !== null && state.can_undo) update("undo", {}, "Undone.");
}

// Playing. Both videos are fetched whole and started together, at every round anew; who falls behind is put right.
// The sound is the first one's, for both were given the same.

const videos = [at("video1"), at("video2")];
const [lead, other] = videos;
const APART = 0.04; // seconds: a frame
const still = matchMedia("(prefers-reduced-motion: reduce)");
let shown = null; // the pair that is loaded, or being loaded
let loaded = false;
let starts = 0; // counts them, so that an older one does not play what a newer one stopped

const event = (video, name) => new Promise((resolve) => { video.addEventListener(name, resolve, { once: true }); });

async function part(pair, name) {
  const reply = await fetch(`pair/${pair}/${name}`);
  if (!reply.ok) throw new Error((await reply.json()).error);
  return URL.createObjectURL(await reply.blob());
}

async function load(pair) {
  if (pair === shown) return;
  shown = pair;
  loaded = false;
  stop();
  if (pair === null) return;
  at("pair").setAttribute("aria-busy", "true");
  at("reference").src = `pair/${pair}/reference`;
  try {
    const addresses = await Promise.all([part(pair, 1), part(pair, 2)]);
    if (pair !== shown) return;
    const ready = videos.map((video, side) => {
      URL.revokeObjectURL(video.src);
      video.src = addresses[side];
      return Promise.race([event(video, "canplaythrough"), event(video, "error")]);
    });
    await Promise.all(ready);
    if (videos.some((video) => video.error)) throw new Error("this browser cannot play a video of this pair");
  } catch (problem) {
    at("error").textContent = `Not shown: ${problem.message}`;
    return;
  }
  if (pair !== shown) return;
  loaded = true;
  asked = performance.now();
  at("pair").setAttribute("aria-busy", "false");
  if (!still.matches) start(0);
}

function stop() {
  starts += 1;
  videos.forEach((video) => video.pause());
}

async function start(time) {
  stop();
  const mine = starts;
  await Promise.all(videos.map((video) => {
    const there = event(video, "seeked");
    video.currentTime = time;
    return there;
  }));
  if (mine !== starts) return;
  try {
    await Promise.all(videos.map((video) => video.play()));
  } catch {
    if (mine !== starts) return;
    // Sound before the first key or click is not allowed by browsers: silent then, and `m` turns it on.
    mute(true);
    await Promise.allSettled(videos.map((video) => video.play()));
  }
}

function toggle() {
  if (!loaded) return;
  if (lead.paused) start(lead.ended ? 0 : lead.currentTime); else stop();
}

function again() { if (loaded) start(0); }

function mute(muted) {
  lead.muted = muted;
  at("mute").textContent = muted ? "Sound on" : "Sound off"; // what it will do
}

lead.addEventListener("timeupdate", () => {
  if (!lead.paused && !lead.ended && Math.abs(lead.currentTime - other.currentTime) > APART) start(lead.currentTime);
});
lead.addEventListener("ended", () => { if (!still.matches) again(); });

at("play").addEventListener("click", toggle);
at("again").addEventListener("click", again);
at("sound").addEventListener("click", () => mute(!lead.muted));
at("undo").addEventListener("click", undo);

const KEYS = {
  1: () => answer(1), 2: () => answer(2), t: () => answer(0), u: undo, r: again, m: () => mute(!lead.muted), " ": toggle,
};
document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.altKey || pressed.metaKey || pressed.repeat || !at("keys").checked) return;
  const own = pressed.target.closest("button, input"); // which the space bar presses
  const act = KEYS[pressed.key.toLowerCase()];
  if (act === undefined || (pressed.key === " " && own)) return;
  pressed.preventDefault();
  act();
});

update("state");
