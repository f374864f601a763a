// Shows the events of /events, and sends the commands of the buttons. Events carry totals; this
// page computes the rates.
"use strict";

const MINUTE = 60_000;
const QUIET = 2_000; // no event for 2 s: the service is lost; four a second are expected
const AGAIN = 2_000;
const BOUNDS = [
  "250 ns", "1 µs", "4 µs", "16 µs", "64 µs", "250 µs",
  "1 ms", "4 ms", "16 ms", "64 ms", "250 ms", "1 s", "more",
];
const KINDS = {
  "fresh": "fresh",
  "early": "fresh, refresh begun early",
  "stale": "stale",
  "after-failure": "stale, the refresh failed",
  "loaded": "loaded",
  "coalesced": "waited for the load of another request",
  "store": "from Redis",
  "not-found": "no such team",
  "failed": "failed",
};

const $ = (id) => document.getElementById(id);
const grouped = (number) => Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
const total = (event) => sum(Object.values(event.answers));
const counted = (number, one, many = `${one}s`) =>
  `${grouped(number)} ${number === 1 ? one : many}`;

function micros(number) {
  if (number < 1) return `${Math.round(number * 1000)} ns`;
  if (number < 1000) return `${number.toPrecision(3)} µs`;
  return `${(number / 1000).toPrecision(3)} ms`;
}

// The last minute of events, the earliest first.
let history = [];
let received = 0;

function listen() {
  const stream = new EventSource("/events");
  stream.onmessage = (message) => {
    received = Date.now();
    say("live", "Live");
    show(JSON.parse(message.data));
  };
  stream.onerror = () => {
    lost();
    // The browser reconnects by itself unless the service refused the stream.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN);
  };
}

function lost() {
  const since = received ? ` ${Math.round((Date.now() - received) / 1000)} s ago` : "";
  say("lost", received
    ? `Lost the service; the figures are from${since}. Trying again …`
    : "The service does not answer. Trying again …");
}

function say(state, text) {
  const link = $("link");
  if (link.textContent !== text) link.textContent = text;
  link.dataset.state = state;
  document.body.classList.toggle("lost", state === "lost");
}

function show(event) {
  const last = history.at(-1);
  if (last && event.at < last.at) history = []; // another process: it counts from zero
  history.push(event);
  while (history[0].at < event.at - MINUTE) history.shift();

  const before = history.findLast((other) => other.at <= event.at - 2_000) ?? history[0];
  const seconds = (event.at - before.at) / 1000;
  $("rate").textContent = seconds ? grouped((total(event) - total(before)) / seconds) : "–";
  $("computes").textContent = grouped(event.computes);
  $("running").textContent = grouped(event.running);
  $("waiting").textContent = grouped(event.waiting);
  $("store").textContent = event.store;
  $("store").classList.toggle("alarm", event.store === "down");
  timeline(event);
  kinds(event);
  latency(event);
  switches(event.switches);
}

function timeline(event) {
  const at = (time) => Math.max(0, Math.min(100, 100 * (1 - (event.at - time) / MINUTE)));
  const rects = [];
  const rect = (kind, from, to, y, height) => {
    const width = Math.max(at(to) - at(from), 0.3);
    if (at(to) > 0) rects.push(
      `<rect class="${kind}" x="${at(from).toFixed(2)}%" width="${width.toFixed(2)}%"` +
      ` y="${y}" height="${height}"/>`);
  };
  let run = null;
  for (const { at: time, key } of history) {
    if (run && run.state === key.state) {
      run.to = time;
      continue;
    }
    if (run) run.to = time;
    run = { state: key.state, from: time, to: time };
    rects.push(run);
  }
  const values = rects.splice(0);
  for (const { state, from, to } of values) if (state !== "none") rect(state, from, to, 4, 28);
  for (const span of event.key.spans) {
    const then = history.findLast((other) => other.at <= span.began);
    const failed = span.ended !== null && span.failed;
    const kind = failed ? "failed" : then?.key.state === "fresh" ? "early" : "stale";
    rect(`refresh-${kind}`, span.began, span.ended ?? event.at, 38, 14);
  }
  $("timeline").innerHTML = rects.join("");
  const { state, age_ms: age } = event.key;
  const running = event.key.spans.some((span) => span.ended === null);
  const refreshing = running ? "; a computation is running" : "";
  const now = state === "none" ? "No value yet" : `Now ${state}, ${(age / 1000).toFixed(1)} s old`;
  $("now").textContent = now + refreshing + ".";
}

function rows(body, count) {
  while (body.rows.length < count) {
    const row = body.insertRow();
    row.append(Object.assign(document.createElement("th"), { scope: "row" }));
    row.insertCell();
    row.insertCell();
  }
  return [...body.rows];
}

function kinds(event) {
  const first = history[0].answers;
  const names = Object.keys(KINDS);
  rows($("kinds").tBodies[0], names.length).forEach((row, number) => {
    const kind = names[number];
    const [name, minute, all] = row.cells;
    name.textContent = KINDS[kind];
    minute.textContent = grouped(event.answers[kind] - first[kind]);
    all.textContent = grouped(event.answers[kind]);
    all.id = `kind-${kind}`;
    row.classList.toggle("none", event.answers[kind] === 0);
    all.classList.toggle("alarm", kind === "failed" && event.answers[kind] > 0);
  });
}

function latency(event) {
  const counts = event.latency.map((count, bucket) => count - history[0].latency[bucket]);
  const most = Math.max(1, ...counts);
  rows($("latency").tBodies[0], counts.length).forEach((row, bucket) => {
    const [bound, bar, count] = row.cells;
    bound.textContent = BOUNDS[bucket];
    bar.className = "bar";
    if (!bar.firstChild) bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${(100 * counts[bucket]) / most}%`;
    bar.firstChild.style.minWidth = counts[bucket] ? "2px" : "0";
    count.textContent = grouped(counts[bucket]);
    row.classList.toggle("none", counts[bucket] === 0);
  });
}

const WORDS = {
  traffic: ["Send 200 requests a second", "Stop the 200 requests a second", "on"],
  loader: ["Break the loader", "Mend the loader", "broken"],
  store: ["Break Redis", "Mend Redis", "broken"],
};

function switches(states) {
  for (const button of document.querySelectorAll("[data-switch]")) {
    const name = button.dataset.switch;
    const [off, on, look] = WORDS[name];
    const text = states[name] ? on : off;
    if (button.textContent !== text) button.textContent = text;
    button.classList.toggle(look, Boolean(states[name]));
    button.dataset.on = Boolean(states[name]);
    if (name === "store") {
      button.disabled = states.store === null;
      $("why").hidden = states.store !== null;
    }
  }
}

async function post(path) {
  const answer = await fetch(path, { method: "POST" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message);
  return body;
}

async function burst(button) {
  $("said").textContent = "Sending …";
  for (const other of document.querySelectorAll("[data-burst]")) other.disabled = true;
  try {
    const met = await post(`/demo/burst?requests=${button.dataset.burst}`);
    for (const figure of ["requests", "computes", "stale", "waited", "failed"]) {
      $(`burst-${figure}`).textContent = grouped(met[figure]);
    }
    $("burst-p50").textContent = micros(met.p50_us);
    $("burst-p99").textContent = micros(met.p99_us);
    $("burst-failed").classList.toggle("alarm", met.failed > 0);
    $("burst").hidden = false;
    const refresh = met.failures
      ? counted(met.failures, "failed refresh", "failed refreshes")
      : counted(met.computes, "compute");
    $("said").textContent =
      `${counted(met.requests, "request")} at once on one stale prediction: ${refresh}, ` +
      `${grouped(met.waited)} waited, ${grouped(met.failed)} failed.`;
  } catch (error) {
    $("said").textContent = `That did not work: ${error.message}.`;
  }
  for (const other of document.querySelectorAll("[data-burst]")) other.disabled = false;
  button.focus({ preventScroll: true });
}

const SAID = {
  traffic: ["No more steady traffic.", "200 requests a second, for ten minutes at most."],
  loader: [
    "The loader works again.",
    "The loader fails now. Stale predictions are served up to their hard limit.",
  ],
  store: [
    "Redis can be reached again.",
    "Redis cannot be reached now. The cache goes on without it.",
  ],
};

async function flip(button) {
  const name = button.dataset.switch;
  const on = button.dataset.on !== "true";
  try {
    switches(await post(`/demo/${name}?on=${on}`));
    $("said").textContent = SAID[name][Number(on)];
  } catch (error) {
    $("said").textContent = `That did not work: ${error.message}.`;
  }
}

for (const button of document.querySelectorAll("[data-burst]")) {
  button.addEventListener("click", () => burst(button));
}
for (const button of document.querySelectorAll("[data-switch]")) {
  button.addEventListener("click", () => flip(button));
}
setInterval(() => { if (received && Date.now() - received > QUIET) lost(); }, 500);
listen();
