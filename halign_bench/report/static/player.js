// Several videos on one clock. The libraries that keep media elements together correct them over half a second or
// more, which is as long as a clip; so here all start together once all are ready, and again at every round.
"use strict";

halign.Player = class {
  #videos = [];
  #lead = null; // whose time is the clock's, and whose sound is heard
  #playing = false;
  #at = 0; // the frame that was asked for last, which counts while nothing plays: seeking takes its time
  #starting = 0; // counts seeks, so that an older one does not start what a newer one stopped
  #frame = null;

  // frames a second, how many there are; `onTime` is told (frame, playing) whenever either changes.
  constructor(fps, frames, onTime) {
    this.fps = fps;
    this.frames = frames;
    this.onTime = onTime;
    this.loop = true;
    this.rate = 1;
    this.muted = false;
  }

  get playing() { return this.#playing; }

  get frame() {
    if (!this.#playing || !this.#lead) return this.#at;
    const time = this.#lead.currentTime;
    return Math.min(this.frames - 1, Math.max(0, Math.floor(time * this.fps + 1e-3)));
  }

  // The first is the lead. Those that cannot be played are left out by whoever calls.
  async show(videos, frame = 0) {
    const was = this.#playing;
    this.stop();
    this.#videos = videos;
    this.#lead = videos[0] ?? null;
    this.#sound();
    await this.seek(frame);
    if (was) await this.play();
  }

  sound(video) {
    if (this.#videos.includes(video)) this.#lead = video;
    this.#sound();
  }

  mute(muted) {
    this.muted = muted;
    this.#sound();
  }

  #sound() {
    for (const video of this.#videos) video.muted = this.muted || video !== this.#lead;
  }

  speed(rate) {
    this.rate = rate;
    for (const video of this.#videos) video.playbackRate = rate;
  }

  async play() {
    if (!this.#videos.length) return;
    await this.#start(this.frame >= this.frames - 1 ? 0 : this.frame);
  }

  pause() {
    this.stop();
    return this.seek(this.#at); // all on the same frame
  }

  stop() {
    this.#at = this.frame;
    this.#starting += 1;
    this.#playing = false;
    cancelAnimationFrame(this.#frame);
    for (const video of this.#videos) video.pause();
  }

  step(frames) {
    this.stop();
    return this.seek((this.#at + frames + this.frames) % this.frames);
  }

  // Into the middle of a frame: its edges belong to either, as a browser rounds.
  async seek(frame) {
    const mine = ++this.#starting;
    this.#at = frame;
    const time = (frame + 0.5) / this.fps;
    await Promise.all(this.#videos.map((video) => new Promise((resolve) => {
      const done = () => resolve();
      if (video.error) { done(); return; }
      video.addEventListener("seeked", done, { once: true });
      video.addEventListener("error", done, { once: true });
      video.currentTime = time;
    })));
    if (mine === this.#starting) this.onTime(this.frame, this.#playing);
    return mine === this.#starting;
  }

  async #start(frame) {
    this.stop();
    this.#playing = true;
    if (!(await this.seek(frame))) return;
    for (const video of this.#videos) video.playbackRate = this.rate;
    await Promise.allSettled(this.#videos.map((video) => video.play()));
    if (this.#playing) this.#frame = requestAnimationFrame(() => this.#tick());
  }

  // Who is behind the lead goes a little faster until it has caught up, who is a frame off is put right.
  #tick() {
    if (!this.#playing) return;
    const time = this.#lead.currentTime;
    for (const video of this.#videos) {
      if (video === this.#lead || video.error) continue;
      const behind = time - video.currentTime;
      if (Math.abs(behind) > 2 / this.fps) video.currentTime = time;
      else video.playbackRate = this.rate * (1 + Math.max(-0.5, Math.min(0.5, behind * 8)));
    }
    this.onTime(this.frame, true);
    if (this.#lead.ended || time >= this.frames / this.fps - 1e-3) {
      if (this.loop) this.#start(0);
      else this.pause();
      return;
    }
    this.#frame = requestAnimationFrame(() => this.#tick());
  }
};
