// A clip's sound, from its samples. The sound of a media element is heard up to a tenth of a second after the element
// was started, another time each time; a sample here is heard when it is told to.
"use strict";

halign.Sound = class {
  static #context = null; // one for all: browsers allow few, and none before somebody pressed something
  #buffer;
  #gain = null;
  #source = null;
  #muted = false;

  // rate  samples a second; samples  base64 of 16-bit integers, mono
  constructor({ rate, samples }) {
    const bytes = Uint8Array.from(atob(samples), (letter) => letter.charCodeAt(0));
    const numbers = Float32Array.from(new Int16Array(bytes.buffer), (sample) => sample / 32768);
    this.#buffer = new AudioBuffer({ length: numbers.length, numberOfChannels: 1, sampleRate: rate });
    this.#buffer.copyToChannel(numbers, 0);
  }

  mute(muted) {
    this.#muted = muted;
    if (this.#gain) this.#gain.gain.value = muted ? 0 : 1;
  }

  // From where the pictures are once there is sound: `time()` is that in seconds. Slower is lower, as with a tape.
  async start(time, rate) {
    this.stop();
    const context = (halign.Sound.#context ??= new AudioContext());
    const source = new AudioBufferSourceNode(context, { buffer: this.#buffer, playbackRate: rate });
    this.#gain = new GainNode(context, { gain: this.#muted ? 0 : 1 });
    source.connect(this.#gain).connect(context.destination);
    this.#source = source;
    await context.resume();
    if (this.#source !== source) return;
    source.start(0, Math.max(0, time() + rate * (context.outputLatency || context.baseLatency || 0)));
  }

  stop() {
    this.#source?.disconnect();
    this.#source = null;
  }
};
