// Draws a spectrogram: time to the right, 0 to 8 kHz upwards, 70 dB from dark to bright.

const SIZE = 512;
const RANGE_DB = 70;
const HIGHEST_HZ = 8000;
const COLOURS = [[11, 7, 36], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

export function draw(canvas, wave, rate) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  if (wave.length < SIZE) return;
  const bins = Math.floor((HIGHEST_HZ / rate) * SIZE);
  const window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  const columns = [];
  let loudest = -Infinity;
  for (let x = 0; x < width; x++) {
    const start = Math.floor((x / width) * (wave.length - SIZE));
    const re = Float32Array.from(window, (w, i) => w * wave[start + i]);
    const im = new Float32Array(SIZE);
    transform(re, im);
    const column = Float32Array.from({ length: bins }, (_, i) => 10 * Math.log10(re[i] ** 2 + im[i] ** 2 + 1e-12));
    for (const value of column) loudest = Math.max(loudest, value);
    columns.push(column);
  }
  const image = context.createImageData(width, height);
  columns.forEach((column, x) => {
    for (let y = 0; y < height; y++) {
      const level = column[Math.floor(((height - 1 - y) / height) * bins)];
      image.data.set([...colour(1 + (level - loudest) / RANGE_DB), 255], 4 * (y * width + x));
    }
  });
  context.putImageData(image, 0, 0);
}

function colour(share) {
  const at = Math.max(0, Math.min(0.999, share)) * (COLOURS.length - 1);
  const [from, to] = [COLOURS[Math.floor(at)], COLOURS[Math.floor(at) + 1]];
  return from.map((value, i) => value + (at % 1) * (to[i] - value));
}

// Radix-2 FFT, in place (Cooley and Tukey, 1965).
function transform(re, im) {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cos = Math.cos((Math.PI * k) / half);
      const sin = -Math.sin((Math.PI * k) / half);
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half;
        const [a, b] = [re[j] * cos - im[j] * sin, re[j] * sin + im[j] * cos];
        [re[j], im[j]] = [re[i] - a, im[i] - b];
        re[i] += a;
        im[i] += b;
      }
    }
  }
}
