// Microphone in, samples out.

export const RATE = 24000;

// Plays samples as they arrive. Starts a moment late, so that a short delay on the way is not heard.
export class StreamPlayer {
  constructor() {
    this.context = new AudioContext({ sampleRate: RATE });
    this.next = 0;
    this.samples = [];
    this.odd = null;
  }

  // bytes: 16-bit little-endian samples, cut anywhere
  add(bytes) {
    if (this.odd !== null) {
      const joined = new Uint8Array(bytes.length + 1);
      joined[0] = this.odd;
      joined.set(bytes, 1);
      bytes = joined;
    }
    this.odd = bytes.length % 2 ? bytes[bytes.length - 1] : null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length - (bytes.length % 2));
    if (!view.byteLength) return;
    const wave = Float32Array.from({ length: view.byteLength / 2 }, (_, i) => view.getInt16(2 * i, true) / 32768);
    this.samples.push(wave);
    const buffer = this.context.createBuffer(1, wave.length, RATE);
    buffer.copyToChannel(wave, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.next = Math.max(this.next, this.context.currentTime + 0.15);
    source.start(this.next);
    this.next += buffer.duration;
  }

  get wave() {
    const whole = new Float32Array(this.samples.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.samples) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  stop() {
    return this.context.close();
  }
}

export function wavBlob(wave, rate = RATE) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * wave.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * wave.length, true);
  wave.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, x))), true));
  return new Blob([view], { type: "audio/wav" });
}

// Samples of a recording in any format that the browser knows.
export async function decode(blob) {
  const context = new OfflineAudioContext(1, 1, RATE);
  return (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
}

export class Recorder {
  // onLevel(0..1, seconds) is called while recording
  async start(onLevel, maxSeconds) {
    if (!navigator.mediaDevices) throw new Error("Browsers give the microphone to https pages and to localhost only. Upload a file instead.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
    } catch {
      throw new Error("The microphone cannot be used. Allow it in the browser, or upload a file instead.");
    }
    this.context = new AudioContext();
    const analyser = this.context.createAnalyser();
    this.context.createMediaStreamSource(this.stream).connect(analyser);
    const values = new Float32Array(analyser.fftSize);
    const begin = performance.now();
    this.parts = [];
    this.media = new MediaRecorder(this.stream);
    this.media.ondataavailable = (event) => this.parts.push(event.data);
    this.media.start();
    this.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(values);
      const seconds = (performance.now() - begin) / 1000;
      onLevel(Math.min(1, 4 * Math.hypot(...values) / Math.sqrt(values.length)), seconds);
      if (seconds >= maxSeconds) this.onFull?.();
    }, 100);
  }

  async stop() {
    clearInterval(this.timer);
    const ended = new Promise((resolve) => { this.media.onstop = resolve; });
    this.media.stop();
    await ended;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    return new Blob(this.parts, { type: this.media.mimeType });
  }
}
