// Several videos and one sound on one clock. Libraries that keep media elements together take half a second or more for
// it, which is as long as a clip. So all start together once all are ready, and again at every round; what is then
// between them is taken out by playing a little faster or slower. Videos have no sound: with some each runs on the
// clock of its own sound output, without all run on the system's.
"use strict";

halign.Player = class {
  static #NEAR = 0.002; // seconds that are left as they are
  #videos = [];
  #lead = null; // whose time is the clock's
  #sound;
  #playing = false;
  #at = 0; // the frame that was asked for last, which counts while nothing plays: seeking takes its time
  #turn = 0; // counts seeks and stops, so that an older start does not go on after a newer one
  #since = 0; // when the last start was, in ms

  // fps frames a second, how many there are; `onTime` is told (frame, playing) whenever either may have changed.
  constructor(fps, frames, sound, onTime) {
    this.fps = fps;
    this.frames = frames;
    this.onTime = onTime;
    this.loop = true;
    this.rate = 1;
    this.#sound = sound;
  }

  get playing() { return this.#playing; }

  get frame() {
    if (!this.#playing || !this.#lead) return this.#at;
    return Math.min(this.frames - 1, Math.max(0, Math.floor(this.#lead.currentTime * this.fps + 1e-3)));
  }

  // Those that cannot be played are left out by whoever calls.
  async show(videos, frame = 0) {
    this.stop();
    this.#videos = videos;
    this.#lead = videos[0] ?? null;
    await this.seek(frame);
  }

  mute(muted) { this.#sound?.mute(muted); }

  speed(rate) {
    this.rate = rate;
    if (this.#playing) this.#start(this.frame);
  }

  async play() {
    if (this.#videos.length) await this.#start(this.frame >= this.frames - 1 ? 0 : this.frame);
  }

  pause() {
    this.stop();
    return this.seek(this.#at); // all on the same frame
  }

  stop() {
    this.#at = this.frame;
    this.#turn += 1;
    this.#playing = false;
    this.#sound?.stop();
    for (const video of this.#videos) video.pause();
  }

  step(frames) {
    this.stop();
    return this.seek((this.#at + frames + this.frames) % this.frames);
  }

  // Into the middle of a frame: its edges belong to either, as a browser rounds. False where something newer came.
  async seek(frame) {
    const mine = ++this.#turn;
    this.#at = frame;
    const time = (frame + 0.5) / this.fps;
    await Promise.all(this.#videos.map((video) => this.#arrive(video, time, mine)));
    if (mine !== this.#turn) return false;
    this.#videos = this.#videos.filter((video) => !video.error);
    this.#lead = this.#videos[0] ?? null;
    this.onTime(frame, this.#playing);
    return true;
  }

  // Looked at, not listened for: of seeks that overtake each other a browser may answer none, so it is asked again.
  async #arrive(video, time, mine) {
    let asked = -Infinity;
    do {
      if (video.error) return;
      if (performance.now() - asked > 1000) {
        asked = performance.now();
        video.currentTime = time;
      }
      await new Promise((resolve) => { setTimeout(resolve, 4); });
    } while (video.seeking && mine === this.#turn);
  }

  async #start(frame) {
    this.stop();
    this.#playing = true;
    if (!(await this.seek(frame)) || !this.#lead) return;
    const mine = this.#turn;
    for (const video of this.#videos) video.playbackRate = this.rate;
    await Promise.allSettled(this.#videos.map((video) => video.play()));
    if (mine !== this.#turn) return;
    this.#since = performance.now();
    this.#sound?.start(() => this.#lead.currentTime, this.rate);
    this.#tick(mine);
  }

  #tick(mine) {
    if (mine !== this.#turn) return;
    const time = this.#lead.currentTime;
    this.onTime(this.frame, true);
    if (this.#lead.ended || time >= this.frames / this.fps - 1e-3) {
      if (this.loop) this.#start(0);
      else this.pause();
    } else if (this.#lost(time)) this.#start(this.frame);
    else {
      this.#nudge(time);
      requestAnimationFrame(() => this.#tick(mine));
    }
  }

  // One is a frame off, because it had to wait for its data or was put to sleep: then all wait for it. Not before the
  // last start had its time to take effect, or a slow machine would do nothing but start.
  #lost(time) {
    const apart = Math.max(...this.#videos.map((video) => Math.abs(time - video.currentTime)));
    return apart > 1 / this.fps && performance.now() - this.#since > 300;
  }

  #nudge(time) {
    for (const video of this.#videos) {
      const behind = time - video.currentTime;
      const more = Math.abs(behind) < halign.Player.#NEAR ? 0 : Math.max(-0.25, Math.min(0.25, 10 * behind));
      video.playbackRate = this.rate * (1 + more);
    }
  }
};
