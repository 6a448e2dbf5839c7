// Requests to this server; errors come as `Error` with the server's own words.

let key = sessionStorage.getItem("key");

export function useKey(value) {
  key = value;
  sessionStorage.setItem("key", value);
}

export class NeedsKey extends Error {}

export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server answered ${response.status}.`;
  throw response.status === 401 ? new NeedsKey(message) : new Error(message);
}

export const getJson = async (path) => (await request(path)).json();

export function postForm(path, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return request(path, { method: "POST", body: form });
}

export const postJson = (path, body, signal) =>
  request(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal });
