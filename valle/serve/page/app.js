// The page: a voice, a text, speech.

import { getJson, NeedsKey, postForm, postJson, request, useKey } from "./api.js";
import { decode, RATE, Recorder, StreamPlayer, wavBlob } from "./sound.js";
import { draw } from "./spectrogram.js";

const $ = (id) => document.getElementById(id);
const EXAMPLES = {
  "A sentence": "The quick brown fox jumps over the lazy dog.",
  "Numbers": "On May 3rd, 2024, she paid $42.50 for 3 books.",
  "A question": "Would you rather walk in the rain, or wait until it stops?",
  "A story": "Once upon a time, there was a small house at the edge of a forest. Nobody knew who lived there. But every night, a light was burning in its window.",
};
let config, voices = [], fresh = null, recorder = null, speaking = null;

// Runs an action; what goes wrong is shown to the person.
async function attempt(action) {
  $("error").hidden = true;
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof NeedsKey) {
      $("key-form").hidden = false;
      $("key").focus();
    }
    $("error").textContent = error.message;
    $("error").hidden = false;
    $("error").scrollIntoView({ block: "nearest" });
  }
}

async function loadVoices(chosen) {
  const list = await getJson("v1/voices");
  voices = list.data;
  $("consent-text").textContent = list.consent_statement;
  $("voice").replaceChildren(...voices.map((voice) => new Option(`${voice.name} · ${voice.seconds.toFixed(0)} s`, voice.id)));
  if (chosen) $("voice").value = chosen;
  await showVoice();
}

async function showVoice() {
  const voice = voices.find((one) => one.id === $("voice").value);
  $("delete").hidden = !voice || voice.builtin;
  if (voice) await showRecording(await (await request(`v1/voices/${voice.id}/recording`)).blob());
}

async function showRecording(blob) {
  let wave;
  try {
    wave = await decode(blob);
  } catch {
    throw new Error("This file is no recording that the browser can read. Use WAV, MP3, OGG, FLAC or M4A.");
  }
  setSource($("prompt-audio"), blob);
  draw($("prompt-picture"), wave, RATE);
  return wave.length / RATE;
}

function setSource(audio, blob) {
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(blob);
}

async function take(blob) {
  fresh = null;
  $("recorded").textContent = "";
  updateSave();
  const seconds = await showRecording(blob);
  $("recorded").textContent = `${seconds.toFixed(1)} s`;
  if (seconds < config.minSeconds || seconds > config.maxSeconds) {
    throw new Error(`This recording has ${seconds.toFixed(1)} s; a voice needs ${config.minSeconds} to ${config.maxSeconds} s.`);
  }
  fresh = blob;
  updateSave();
}

function updateSave() {
  $("save").disabled = !(fresh && $("consent").checked);
}

async function toggleRecording() {
  if (recorder) {
    const finished = recorder;
    recorder = null;
    $("record").classList.remove("on");
    $("record").textContent = "Record";
    $("level").hidden = true;
    await take(await finished.stop());
    return;
  }
  const starting = new Recorder();
  await starting.start((level, seconds) => {
    $("level").value = level;
    $("recorded").textContent = `${seconds.toFixed(1)} s`;
  }, config.maxSeconds - 0.5);
  starting.onFull = () => recorder && attempt(toggleRecording);
  recorder = starting;
  $("record").classList.add("on");
  $("record").textContent = "Stop";
  $("level").hidden = false;
}

async function saveVoice() {
  $("save").disabled = true;
  try {
    const name = $("name").value.trim() || "My voice";
    const fields = { file: fresh, name, consent: "true", transcript: $("transcript").value.trim() };
    const voice = await (await postForm("v1/voices", fields)).json();
    fresh = null;
    $("new-voice").open = false;
    await loadVoices(voice.id);
    if (voice.notes.length) throw new Error(`Saved. ${voice.notes.join(" ")}`);
  } finally {
    updateSave();
  }
}

async function deleteVoice() {
  if (!confirm("Delete this voice for good?")) return;
  await request(`v1/voices/${$("voice").value}`, { method: "DELETE" });
  await loadVoices();
}

async function toggleSpeaking() {
  if (speaking) {
    speaking.abort();
    return;
  }
  if (!$("text").value.trim()) throw new Error("Write what to say first.");
  if (!$("seed").reportValidity()) return;
  speaking = new AbortController();
  $("speak").textContent = "Stop";
  $("result").hidden = false;
  // Nothing of the speech before stays: what is to be heard belongs to what was asked last.
  $("speech-audio").pause();
  for (const id of ["speech", "speech-audio", "checks", "check", "another", "download"]) $(id).hidden = true;
  $("status").textContent = "Thinking …";
  const player = new StreamPlayer();
  try {
    await listen(player, speaking.signal);
  } catch (error) {
    $("status").textContent = error.name === "AbortError" ? "Stopped." : "Broken off.";
    $("result").hidden = !player.samples.length;
    await player.stop();
    throw error;
  } finally {
    speaking = null;
    $("speak").textContent = "Speak";
    if (player.samples.length) showSpeech(player.wave);
  }
}

async function listen(player, signal) {
  const begin = performance.now();
  const how = { speed: Number($("speed").value), seed: Number($("seed").value), best_of: Number($("quality").value) };
  const wish = { input: $("text").value, voice: $("voice").value, ...how, response_format: "pcm", stream: true };
  const response = await postJson("v1/audio/speech", wish, signal);
  const reader = response.body.getReader();
  let first = null;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (!part.value.length) continue;
    first ??= (performance.now() - begin) / 1000;
    player.add(part.value);
    $("speech").hidden = false;
    draw($("speech-picture"), player.wave, RATE);
    $("status").textContent = `Speaking; the first sound came after ${first.toFixed(1)} s.`;
  }
  const made = player.wave.length / RATE;
  const took = (performance.now() - begin) / 1000;
  $("status").textContent = `${made.toFixed(1)} s of speech in ${took.toFixed(1)} s; the first sound came after ${first.toFixed(1)} s.`;
}

function showSpeech(wave) {
  const blob = wavBlob(wave);
  draw($("speech-picture"), wave, RATE);
  setSource($("speech-audio"), blob);
  $("download").href = $("speech-audio").src;
  for (const id of ["speech-audio", "another", "download"]) $(id).hidden = false;
  $("check").hidden = !config.checks;
  $("check").onclick = () => attempt(() => check(blob, $("voice").value, $("text").value));
}

async function speakDifferently() {
  $("seed").value = Number($("seed").value) + 1;
  await toggleSpeaking();
}

async function check(blob, voice, text) {
  $("check").disabled = true;
  try {
    const found = await (await postForm("v1/check", { file: blob, voice, text })).json();
    const percent = (share) => (share === null ? "not measurable" : `${(100 * share).toFixed(0)} %`);
    $("similarity").textContent = percent(found.similarity);
    $("heard").textContent = found.heard || "nothing";
    $("errors").textContent = percent(found.character_error_rate);
    $("checks").hidden = false;
  } finally {
    $("check").disabled = false;
  }
}

function updateCount() {
  $("count").textContent = `${$("text").value.length.toLocaleString()} of ${config.textCharacters.toLocaleString()} characters`;
}

async function begin() {
  config = await getJson("page/config.json");
  $("text").maxLength = config.textCharacters;
  $("advice").textContent = `${config.minSeconds} to ${config.maxSeconds} s of one person speaking, in a quiet room. Six or more sound best.`;
  for (const [title, text] of Object.entries(EXAMPLES)) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "example", textContent: title });
    button.onclick = () => { $("text").value = text; updateCount(); };
    $("examples").append(button);
  }
  updateCount();
  await loadVoices();
}

$("voice").onchange = () => attempt(showVoice);
$("delete").onclick = () => attempt(deleteVoice);
$("record").onclick = () => attempt(toggleRecording);
$("file").onchange = () => $("file").files.length && attempt(() => take($("file").files[0]));
$("consent").onchange = updateSave;
$("save").onclick = () => attempt(saveVoice);
$("speak").onclick = () => attempt(toggleSpeaking);
$("another").onclick = () => attempt(speakDifferently);
$("text").oninput = updateCount;
$("speed").oninput = () => { $("speed-value").textContent = `${Number($("speed").value)}×`; };
$("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey($("key").value);
  $("key-form").hidden = true;
  attempt(loadVoices);
};
attempt(begin);
