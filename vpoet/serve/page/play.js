"use strict";
// The page of play. vpoet/serve/messages.py says what it and the server tell each other.

const FRAME = 1, FILM = 2;
const CODES = { // of an action's name, by the places of the keys, whatever is printed on them
  left: ["ArrowLeft", "KeyA"], right: ["ArrowRight", "KeyD"], up: ["ArrowUp", "KeyW"], down: ["ArrowDown", "KeyS"],
  jump: ["Space", "KeyX"], climb: ["ArrowUp", "KeyW"], fire: ["Space", "KeyX"], forward: ["ArrowUp", "KeyW"],
  noop: [], none: [], stay: [],
};
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const PACES = [0.25, 0.5, 1, 2, 4];
const element = (id) => document.getElementById(id);
const say = (text, wrong = false) => {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
};

let socket, hello, record;
let pictures = [], buttons = [], codes = new Map();
let serial = 0, pressedAt = new Map(), latencies = [], moments = [];
let recording = false, paused = false, coins = [];

const tell = (message) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
};

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/play`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? heard(JSON.parse(data)) : seen(data));
  socket.onclose = () => {
    say("The server has gone, or closed this game; trying again.", true);
    setTimeout(connect, 1000);
  };
}

function heard(told) {
  if (told.say === "hello") greet(told);
  else if (told.say === "error") say(told.text, true);
  else if (told.say === "begun") {
    element("seed").value = told.seed;
    element("prompt").value = told.prompt;
    element("prompt").placeholder = told.told || ""; // what it is told where nothing is asked for
    coins = hello.shows.map(() => 0);
    say(told.told ? `“${told.told}”, seed ${told.seed}` : `seed ${told.seed}`);
  } else if (told.say === "paused") {
    requestAnimationFrame(() => { document.body.dataset.paused = told.on; }); // behind the frames before it
  } else if (told.say === "told") say(`The model is told “${told.prompt}”.`);
  else if (told.say === "recording") setRecording(true);
  else if (told.say === "film") { record = told.record; setRecording(false); }
}

function greet(told) {
  hello = told;
  paused = false;
  element("pause").setAttribute("aria-pressed", "false");
  setRecording(false);
  element("about").textContent = `${told.name} · ${told.height}×${told.width} at ${told.fps} frames a second` +
    (told.world ? ` · real: ${told.world}` : "");
  const kept = element("view").value;
  options("view", told.shows.length > 1 ? ["both", "model", "real"] : ["model"], kept);
  options("pace", PACES.map((pace) => [String(told.fps * pace), `${pace}× (${told.fps * pace}/s)`])
    .concat([["240", "as fast as it goes"]]), element("pace").value || String(told.fps));
  element("view").disabled = told.shows.length < 2;
  pictures = told.shows.map((name) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    canvas.width = told.width;
    canvas.height = told.height;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `the ${name} world`);
    caption.textContent = name;
    figure.append(canvas, caption);
    return { name, figure, caption, context: canvas.getContext("2d") };
  });
  element("pictures").replaceChildren(...pictures.map((each) => each.figure));
  show();
  codes = new Map();
  buttons = told.actions.map((name, index) => {
    const mine = (CODES[name] || []).filter((code) => !codes.has(code));
    if (index < 9) mine.push(`Digit${index + 1}`);
    for (const code of mine) codes.set(code, index);
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1; // its keys are nearer
    button.dataset.action = name;
    const sign = document.createElement("kbd");
    sign.textContent = mine.map((code) => SIGNS[code] || code.replace(/Key|Digit/, "")).join(" ");
    button.append(name, sign);
    button.onpointerdown = (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      press(index);
    };
    button.onpointerup = button.onpointercancel = button.onlostpointercapture = () => release(index);
    button.oncontextmenu = (event) => event.preventDefault();
    return button;
  });
  element("keys").replaceChildren(...buttons);
  if (Number(element("pace").value) !== told.fps) tell({ do: "pace", fps: Number(element("pace").value) });
}

function options(id, values, chosen) {
  element(id).replaceChildren(...values.map((value) => {
    const [key, text] = Array.isArray(value) ? value : [value, value];
    return new Option(text, key, false, key === chosen);
  }));
}

function show() {
  const view = element("view").value;
  for (const each of pictures) each.figure.hidden = view !== "both" && view !== each.name;
}

function seen(buffer) {
  const data = new DataView(buffer);
  if (data.getUint8(0) === FILM) return keep(new Uint8Array(buffer, 1));
  const count = data.getUint8(1), height = data.getUint16(2, true), width = data.getUint16(4, true);
  const number = data.getUint32(6, true), at = data.getUint32(10, true), nats = data.getFloat32(14, true);
  let place = 18 + 2 * count, ended = 0;
  for (let index = 0; index < count; index++) {
    const image = pictures[index].context.createImageData(width, height), pixels = image.data;
    const rgb = new Uint8Array(buffer, place, 3 * width * height);
    for (let from = 0, to = 0; from < rgb.length; to += 4) {
      pixels[to] = rgb[from++];
      pixels[to + 1] = rgb[from++];
      pixels[to + 2] = rgb[from++];
      pixels[to + 3] = 255;
    }
    pictures[index].context.putImageData(image, 0, 0);
    place += rgb.length;
    const over = data.getUint8(19 + 2 * index);
    ended += over;
    if (data.getInt8(18 + 2 * index) > 0) coins[index]++;
    pictures[index].figure.classList.toggle("ended", Boolean(over));
    pictures[index].caption.textContent = pictures[index].name + (coins[index] ? ` · rewards ${coins[index]}` : "") +
      (over ? " · the end" : "");
  }
  if (ended === count) say("The end. R begins again, N with the next seed.");
  requestAnimationFrame((now) => measure(now, number, at, nats));
}

function measure(now, number, at, nats) {
  if (pressedAt.has(at)) {
    latencies.push(performance.now() - pressedAt.get(at));
    if (latencies.length > 200) latencies.shift();
    for (const each of pressedAt.keys()) if (each <= at) pressedAt.delete(each);
  }
  moments.push(now);
  if (moments.length > 60) moments.shift();
  const rate = moments.length > 1 ? (1000 * (moments.length - 1)) / (now - moments[0]) : 0;
  const sorted = [...latencies].sort((a, b) => a - b);
  const wait = sorted.length ? ` · key to pixel ${sorted[Math.floor(0.95 * (sorted.length - 1))].toFixed(0)} ms (95%)` : "";
  element("measures").textContent =
    `frame ${number} · ${rate.toFixed(1)} a second · surprise ${(nats / Math.LN2).toFixed(1)} bits${wait}`;
  document.body.dataset.frame = number;
}

function press(index) {
  if (!buttons[index] || buttons[index].classList.contains("down")) return;
  buttons[index].classList.add("down");
  serial++;
  pressedAt.set(serial, performance.now());
  tell({ do: "press", key: index, at: serial });
}

function release(index) {
  if (!buttons[index] || !buttons[index].classList.contains("down")) return;
  buttons[index].classList.remove("down");
  tell({ do: "release", key: index });
}

const releaseAll = () => buttons.forEach((_, index) => release(index));

function restart(seed) {
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) return say("A seed is an integer from 0 on.", true);
  setPaused(false);
  tell({ do: "restart", seed, prompt: element("prompt").value });
}

function setPaused(on) {
  if (paused === on) return;
  paused = on;
  element("pause").setAttribute("aria-pressed", String(on));
  tell({ do: "pause", on });
}

function setRecording(on) {
  recording = on;
  element("record").setAttribute("aria-pressed", String(on));
}

function keep(mp4) {
  const name = `play-${record.seed}-${record.first}`, item = document.createElement("li");
  const files = [[`${name}.mp4`, new Blob([mp4], { type: "video/mp4" })],
    [`${name}.mp4.json`, new Blob([JSON.stringify(record, null, 1)], { type: "application/json" })]];
  files.forEach(([file, blob], index) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = link.textContent = file;
    item.append(index ? ", its keys: " : `${record.frames} frames: `, link);
  });
  element("films").prepend(item);
}

const ACTS = {
  KeyR: () => restart(Number(element("seed").value)),
  KeyN: () => restart(Number(element("seed").value) + 1),
  KeyP: () => setPaused(!paused),
  KeyF: () => tell({ do: "record", on: !recording, view: element("view").value }),
  KeyV: () => {
    const view = element("view");
    view.selectedIndex = (view.selectedIndex + 1) % view.options.length;
    show();
  },
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest("input, select, textarea");
  if (field) {
    if (event.code === "Escape") field.blur();
    return;
  }
  if (event.target.closest("button, a") && ["Space", "Enter"].includes(event.code)) return;
  if (codes.has(event.code)) {
    event.preventDefault();
    if (!event.repeat) press(codes.get(event.code));
  } else if (ACTS[event.code] && !event.repeat) ACTS[event.code]();
});
addEventListener("keyup", (event) => codes.has(event.code) && release(codes.get(event.code)));
addEventListener("blur", releaseAll);
addEventListener("visibilitychange", () => { releaseAll(); tell({ do: "pause", on: paused || document.hidden }); });
element("begin").onsubmit = (event) => { event.preventDefault(); ACTS.KeyR(); document.activeElement.blur(); };
element("next").onclick = ACTS.KeyN;
element("pause").onclick = ACTS.KeyP;
element("record").onclick = ACTS.KeyF;
element("view").onchange = () => { show(); element("view").blur(); };
element("pace").onchange = () => { tell({ do: "pace", fps: Number(element("pace").value) }); element("pace").blur(); };
addEventListener("click", (event) => { // keys go on after a click; who comes to a button by Tab stays on it
  if (event.detail && event.target.closest("button")) event.target.closest("button").blur();
});
element("tell").onclick = () => { tell({ do: "prompt", text: element("prompt").value }); element("tell").blur(); };
element("prompt").onkeydown = (event) => {
  if (event.key === "Enter") { event.preventDefault(); element("tell").click(); element("prompt").blur(); }
};
element("pages").hidden = location.pathname === "/"; // it is all there is
connect();
