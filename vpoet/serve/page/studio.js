"use strict";
// The page of everything. vpoet/serve/api.py says what it asks the server, and what it is told.

const $ = (id) => document.getElementById(id);
const TASKS = [ // name, words, tasks of a bundle that serve it, what is given, other fields
  ["text", "text", ["t2v", "unconditional"], [], ["frames", "story", "via_image", "window", "overlap"]],
  ["still", "text, to a picture", ["t2i"], [], []],
  ["image", "a first frame", ["i2v"], ["image"], ["frames", "story", "window", "overlap"]],
  ["extend", "a video, on from its end", ["continuation"], ["video"],
    ["frames", "given_frames", "story", "window", "overlap"]],
  ["before", "a video, up to its start", ["backward"], ["video"], ["frames", "given_frames"]],
  ["last", "a last frame", ["backward"], ["last"], ["frames"]],
  ["between", "a first and a last frame", ["interpolation"], ["image", "last"], ["frames"]],
  ["slow", "a video, more frames between", ["interpolation"], ["video"], ["frames"]],
  ["paint-image", "a picture, a part painted anew", ["inpainting"], ["image"], ["mask"]],
  ["paint", "a video, a part painted anew", ["inpainting"], ["video"], ["frames", "mask"]],
  ["edit", "a clip, under another prompt", ["t2v"], ["edit"], ["was", "strength"]],
  ["edit-part", "a clip, a part under another prompt", ["t2v"], ["edit"], ["was", "strength", "mask"]],
  ["restyle", "a video, by its controls alone", ["t2v"], ["video"],
    ["frames", "story", "via_image", "window", "overlap"]],
  ["finer-image", "a picture, twice as fine", ["sr"], ["image"], []],
  ["finer", "a video, twice as fine", ["sr"], ["video"], ["frames"]],
  ["border-image", "a picture, with more around it", ["outpainting"], ["image"], ["outpaint"]],
  ["border", "a video, with more around it", ["outpainting"], ["video"], ["frames", "outpaint"]],
];
const VIDEO_TASKS = { before: "backward", slow: "interpolation" };
const FINER = ["finer-image", "finer"];
const NUMBERS = ["frames", "height", "width", "fps", "seed", "guidance", "temperature", "top_k", "top_p", "min_p",
  "given_frames", "window", "overlap", "strength"];
const GIVEN = ["image", "last", "video", "edit"];
const MADE = ["restyle", "edit", "edit-part"]; // from what is given here, controls can be made
const PAGE = 24; // clips of the history that are shown at once

let models = [], makers = [], uploads = {}, cards = new Map(), socket, older = [], sides = { a: null, b: null };
const narrow = matchMedia("(max-width: 52rem)"); // as in page.css
const brush = new Brush($("brush"), $("easel-image"));
const border = new Border($("stage"), Object.fromEntries(SIDES.map((side) => [side, $(side)])),
  () => ["height", "width"].map((name) => Number($(name).value) || (model() || {})[name] || 64));

const controls = new Controls($("control-box"), (kind, file) => guarded(send)(file));
const conditions = new Conditions($("condition-box"));

const say = (text, wrong = false) => {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
};

async function call(method, path, body) {
  const answer = await fetch(path, { method, body }).catch(() => { throw new Error("The server does not answer."); });
  const told = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(told.error || answer.statusText);
  return told;
}

const model = () => models.find((each) => each.name === $("model").value) || makers[0];
const task = () => TASKS.find(([name]) => name === $("task").value) || TASKS[0];

// What is asked for

const tasksOf = (one) => TASKS.filter(([name, , needs]) =>
  needs.some((each) => one.tasks.includes(each)) && (name !== "restyle" || one.makes.length));

function showModel() {
  const one = model(), kept = $("task").value;
  $("about").textContent = `${one.height}×${one.width}, ${one.frames} frames at ${one.fps} a second`;
  $("task").replaceChildren(...tasksOf(one).map(([name, words]) => new Option(words, name, false, name === kept)));
  for (const name of ["frames", "height", "width", "fps", "guidance", "temperature"]) $(name).placeholder = one[name];
  $("frames").step = $("given_frames").step = one.stride[0];
  $("height").step = $("width").step = one.stride[1];
  $("height").min = $("width").min = one.stride[1];
  const others = makers.filter((each) => each !== one);
  $("second").replaceChildren(new Option("no other model", ""),
    ...others.map((each) => new Option(each.name, each.name)));
  $("model-row").hidden = makers.length < 2;
  $("known").hidden = !one.words.length || one.words.length > 500;
  $("known").querySelector("p").textContent = [...one.words].sort().join(" ");
  conditions.show(one);
  showTask();
  markWords();
}

function showTask() {
  const [name, , , given, fields] = task();
  for (const each of document.querySelectorAll("[data-field]")) {
    each.hidden = ![...given, ...fields].includes(each.dataset.field);
    for (const field of each.querySelectorAll("input, textarea")) field.disabled = each.hidden; // nor is it checked
  }
  $("mask-box").hidden = $("mask-box").disabled = !fields.includes("mask");
  $("border-box").hidden = $("border-box").disabled = !fields.includes("outpaint");
  controls.show(model(), MADE.includes(name));
  showEasel();
  border.show();
}

function markWords() {
  const known = model().words, text = $("prompt").value;
  if (!known.length) { $("marks").replaceChildren(); return note(""); }
  const parts = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [];
  const unknown = [...new Set(parts.filter((word) => !known.includes(word)))];
  $("marks").replaceChildren(...parts.flatMap((word) => {
    const mark = make("mark", { textContent: word, className: known.includes(word) ? "known" : "unknown" });
    return [mark, " "];
  }));
  note(unknown.length ? `— the model never met: ${unknown.join(", ")}.` : parts.length ? "— all known." : "");
}

function note(text) { // is read out where it has changed, and not at each letter
  if ($("met").textContent !== text) $("met").textContent = text;
}

function asked() {
  const [name, , , given, fields] = task();
  const found = { model: model().name, prompt: $("prompt").value.trim() };
  for (const field of NUMBERS) {
    const free = !document.querySelector(`[data-field="${field}"]`) || fields.includes(field);
    if (free && $(field).value !== "") found[field] = Number($(field).value);
  }
  for (const field of given) {
    if (!uploads[field]) throw new Error(`Choose the ${$(field).labels[0].textContent.toLowerCase()} first.`);
    found[field] = uploads[field].id;
  }
  if (fields.includes("was") && $("was").value.trim()) found.was = $("was").value.trim();
  if (name === "still") found.frames = 1;
  if (VIDEO_TASKS[name]) found.task = VIDEO_TASKS[name];
  if (FINER.includes(name)) found.upscale = true;
  if (fields.includes("outpaint")) found.outpaint = SIDES.map((side) => Number($(side).value)).join(",");
  if (fields.includes("via_image") && $("via_image").checked) found.via_image = true;
  const lines = $("story").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (fields.includes("story") && lines.length) found.story = lines;
  const followed = controls.asked();
  if (followed.length) found.control = followed;
  if (name === "restyle" && !controls.makes) throw new Error("Say which control is made of the clip.");
  return Object.assign(found, conditions.asked());
}

async function submit() {
  const body = asked(), count = Number($("count").value) || 1;
  if (task()[4].includes("mask")) {
    if (!brush.any) throw new Error("Mark with the brush, or a box, what is to be painted anew.");
    body.mask = brush.id || (await call("POST", "/api/uploads", await brush.file())).id;
  }
  const wanted = [{ ...body, count }];
  if ($("second").value) wanted.push({ ...body, count, model: $("second").value });
  const jobs = [];
  for (const each of wanted) { // what one model takes is shown, whatever the other says
    const answer = await call("POST", "/api/jobs", JSON.stringify(each));
    for (const job of answer.jobs) begin(job);
    watch(answer.jobs.map((job) => job.id));
    jobs.push(...answer.jobs);
  }
  if (wanted.length > 1 && count === 1) [sides.a, sides.b] = jobs.map((job) => job.id);
  compare();
  if (narrow.matches) cards.get(jobs[0].id)?.article.scrollIntoView({ block: "nearest" }); // it is below all fields
  say(`${jobs.length === 1 ? "One clip" : `${jobs.length} clips`} asked for.`);
}

const guarded = (does) => async (...given) => {
  try { return await does(...given); } catch (error) { return say(error.message, true); }
};

// What is given

async function send(file) {
  say(`Sending ${file.name} …`);
  const about = await call("POST", "/api/uploads", file).catch((error) => {
    throw new Error(`${file.name}: ${error.message}`);
  });
  say(`${file.name}: ${about.width}×${about.height}` + (about.fps ? `, ${about.frames} frames` : ""));
  return about;
}

async function upload(field, file) {
  const about = await send(file);
  setUpload(field, about, true);
  if (field === "edit") { // what it was made from, if its file tells
    try { $("was").value = JSON.parse(about.comment).vpoet.prompt || ""; } catch { /* a file of others */ }
  }
}

// What there is to see of a file that was sent, or of a clip that was made here
const preview = (about) => about.made ? `/api/clips/${about.id}.webp` : `/api/uploads/${about.id}/preview`;

function setUpload(field, about, chosen = false) { // chosen: by its field, which shows its name
  uploads[field] = about;
  if (!chosen) $(field).value = "";
  $(field).parentElement.classList.toggle("elsewhere", Boolean(about) && !chosen);
  const shown = document.querySelector(`[data-field="${field}"] .preview`);
  shown.src = about ? preview(about) : "";
  shown.alt = about ? `what was sent as ${field}` : "";
  showEasel();
}

function showEasel() {
  const about = uploads[task()[3][0]];
  $("easel").hidden = !about;
  $("easel-hint").hidden = Boolean(about);
  $("stage").classList.toggle("empty", !about);
  $("stage-image").src = about ? preview(about) : "icon.svg";
  if ($("mask-box").hidden || !about) return;
  brush.begin(preview(about), about.width, about.height);
}

// Its settings are back: of a clip's file, or its record
async function settings(told) {
  const one = makers.find((each) => each.hash === told.hash || each.hash === told.model || each.name === told.model);
  if (one) $("model").value = one.name;
  showModel();
  const given = GIVEN.filter((field) => told[field]), way = told.task === "continuation" ? "" : told.task || "";
  const hole = told.mask ? "mask" : told.outpaint ? "outpaint" : "";
  const anew = given.join() === "video" && !hole && !way && readControls(told.control).some((each) => each.clip === "auto");
  const fits = ([name, , , needs, fields]) => needs.join() === given.join() && (!hole || fields.includes(hole)) &&
    (hole || !fields.includes("mask") && !fields.includes("outpaint")) && (VIDEO_TASKS[name] || "") === way &&
    (name === "restyle") === anew && FINER.includes(name) === Boolean(told.upscale);
  const still = !given.length && told.frames === 1;
  const found = still ? TASKS.find(([name]) => name === "still") : TASKS.find(fits);
  if (found && [...$("task").options].some((option) => option.value === found[0])) $("task").value = found[0];
  $("prompt").value = told.prompt || "";
  for (const field of NUMBERS) $(field).value = typeof told[field] === "number" ? told[field] : "";
  if ([...$("more").querySelectorAll("input")].some((field) => field.value)) $("more").open = true;
  $("story").value = (told.story || []).map((line) => (Array.isArray(line) ? line.join(": ") : line)).join("\n");
  $("via_image").checked = Boolean(told.via_image);
  $("count").value = 1;
  $("was").value = told.was || "";
  $("strength").value = told.strength || 0;
  $("strength").oninput();
  if (told.outpaint) String(told.outpaint).split(",").forEach((side, index) => { $(SIDES[index]).value = side; });
  let missing = 0;
  for (const field of given) {
    const about = typeof told[field] === "string" && await lookUp(told[field]);
    setUpload(field, about || undefined);
    missing += !about;
  }
  showTask();
  markWords();
  conditions.settings(told);
  missing += await controls.settings(told.control, lookUp);
  if (typeof told.mask === "string") await drawMask(told.mask);
  say(missing ? "Its settings are back, but what was given is here no more: send it again." : "Its settings are back.");
}

// A file that was sent, or a clip that was made here, if it is still there
async function lookUp(id) {
  const { clips } = await call("GET", "/api/clips");
  return clips.find((about) => about.id === id) ||
    call("GET", `/api/uploads/${encodeURIComponent(id)}`).catch(() => null);
}

async function drawMask(id) {
  const about = await lookUp(id);
  if (!about) return;
  const image = new Image();
  image.src = `/api/uploads/${id}/preview`;
  await image.decode();
  brush.clear();
  const pen = $("brush").getContext("2d");
  pen.drawImage(image, 0, 0, $("brush").width, $("brush").height);
  const all = pen.getImageData(0, 0, $("brush").width, $("brush").height);
  for (let i = 0; i < all.data.length; i += 4) all.data[i + 3] = all.data[i] > 127 ? 255 : 0; // black is not marked
  pen.putImageData(all, 0, 0);
  brush.any = true;
  brush.id = id;
}

async function dropped(file) {
  if (file.name.endsWith(".json")) return settings(JSON.parse(await file.text()));
  const about = await send(file);
  let told = null;
  try { told = JSON.parse(about.comment).vpoet; } catch { /* a file of others */ }
  if (told) return settings(told);
  const wanted = task()[3].find((field) => !uploads[field]) || task()[3][0] || (about.fps ? "video" : "image");
  if (!task()[3].length) {
    const name = about.fps ? "extend" : "image";
    if ([...$("task").options].some((option) => option.value === name)) $("task").value = name;
    showTask();
  }
  setUpload(wanted, about);
  say(`${file.name} is what it begins with.`);
}

// What is made

function card(id, asked) {
  const own = models.find((each) => each.name === asked.model) || model();
  const clip = new Clip(asked.fps || own.fps), size = { width: asked.width || own.width, height: asked.height || own.height };
  const canvas = make("canvas", size), words = make("p", { className: "words" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", asked.prompt || "a clip");
  const bar = make("progress", { max: 1, value: 0, ariaLabel: "How much of it is made" });
  const tools = make("div", { className: "tools" });
  const label = (makers.length > 1 ? `${asked.model}: ` : "") + `${asked.prompt || "no prompt"} · seed ${asked.seed}`;
  const head = make("p", { className: "label", textContent: label, title: label });
  const article = make("article", { ariaLabel: label }, canvas, head, bar, words, tools);
  article.dataset.id = id;
  const found = { id, asked, clip, canvas, words, bar, tools, article, label, view: { clip, canvas } };
  play(found.view);
  cards.set(id, found);
  return found;
}

function begin(job) {
  if (cards.has(job.id)) return;
  const one = card(job.id, job.asked);
  const stop = make("button", { type: "button", textContent: "Cancel" });
  stop.onclick = guarded(async () => { stop.disabled = true; await call("DELETE", `/api/jobs/${job.id}`); });
  one.tools.append(stop);
  one.words.textContent = "asked for";
  $("running").prepend(one.article);
}

async function heard(told) {
  const one = cards.get(told.job);
  if (!one) return;
  if (told.event === "waiting") one.words.textContent = told.position ? `waiting: ${told.position} before it` : "next";
  else if (told.event === "warning") one.words.before(warned(told.warning));
  else if (told.event === "part") { one.bar.value = told.part; one.words.textContent = ""; }
  else if (told.event === "seen") {
    await one.clip.strip(told.first, told.frames, told.height, told.width, told.png);
    one.article.dataset.seen = one.clip.frames.length;
    one.words.textContent = `${one.clip.frames.length} frames`;
  } else if (told.event === "done") {
    cards.delete(told.job);
    await show(told.clip, (fresh) => one.article.replaceWith(fresh));
    compare();
    if (!$("status").classList.contains("wrong")) say("A clip is done.");
  } else {
    cards.delete(told.job);
    if (told.event === "cancelled") one.article.remove();
    else {
      one.words.textContent = told.error || "The server does not know it any more.";
      one.article.classList.add("wrong");
      const close = make("button", { type: "button", textContent: "Close" });
      close.onclick = () => one.article.remove();
      one.tools.replaceChildren(close);
      one.bar.remove();
      say(one.words.textContent, true);
    }
  }
}

const warned = (text) => make("p", { className: "warning", textContent: text });

async function show(about, place) {
  const one = card(about.id, about.asked);
  one.about = about;
  one.clip.fps = about.fps || 1;
  one.bar.remove();
  const answer = await fetch(`/api/clips/${about.id}.rgb`);
  if (!answer.ok) {
    cards.delete(about.id);
    throw new Error("The clip is here no more.");
  }
  const bytes = new Uint8Array(await answer.arrayBuffer());
  one.clip.raw(bytes, about.frames, about.height, about.width);
  const bits = curve(about, one.clip);
  one.view.onframe = bits.tell;
  one.words.replaceWith(...(about.warnings || []).map(warned), bits);
  const links = ["mp4", "gif", "png", "npz"].map((kind) => make("a", {
    href: `/api/clips/${about.id}.${kind}`, download: `vpoet-${about.id}.${kind}`,
    textContent: kind === "npz" ? "codes" : kind,
  }));
  const button = (text, title, does) => {
    const found = make("button", { type: "button", textContent: text, title });
    found.onclick = guarded(does);
    return found;
  };
  const side = (name, text, where, other) => button(text, `Show it on the ${where}, beside another clip`, () => {
    sides[name] = about.id;
    compare();
    if ($("compare").hidden) say(`It is ${text}. Press ${other} of another clip to see both.`);
  });
  const other = make("div", { className: "tools" }, "Compare as", side("a", "A", "left", "B"), side("b", "B", "right", "A"));
  one.tools.after(other);
  one.tools.before(make("div", { className: "tools" }, "Save as", ...links));
  one.tools.append(
    button("Settings", "Ask for this again", async () => { await settings(about.asked); $("prompt").focus(); }),
    button("Go on", "Begin with its end", () => goOn(about)),
    button("Edit", "Draw it again under another prompt", () => edit(about)),
    button("Delete", "Remove it here and on the server", async () => {
      await call("DELETE", `/api/clips/${about.id}`);
      cards.delete(about.id);
      one.article.remove();
      compare();
    }),
  );
  const source = GIVEN.find((field) => about.asked[field]);
  if (source) other.append(button("A | source", "Beside what was given", () => besideSource(about, source)));
  one.article.dataset.done = "true";
  place(one.article);
  play(one.view); // it was none that plays as long as it was nowhere
}

async function goOn(about) {
  const file = await (await fetch(`/api/clips/${about.id}.${about.fps ? "mp4" : "png"}`)).blob();
  const name = about.fps ? "extend" : "image";
  if (![...$("task").options].some((option) => option.value === name)) throw new Error("This model does not go on.");
  $("task").value = name;
  showTask();
  setUpload(about.fps ? "video" : "image", await call("POST", "/api/uploads", file));
  $("prompt").focus();
  say("It goes on from its end: say what is next, and press Make.");
}

function edit(about) {
  const name = task()[0].startsWith("edit") ? task()[0] : "edit";
  if (![...$("task").options].some((option) => option.value === name)) throw new Error("This model does not edit.");
  $("task").value = name;
  for (const field of ["frames", "height", "width", "fps"]) $(field).value = ""; // an edit keeps them
  $("prompt").value = $("was").value = about.asked.prompt || "";
  showTask();
  setUpload("edit", about);
  markWords();
  $("prompt").focus();
  say("Write what it shall show now, and press Make.");
}

// Two beside each other

async function besideSource(about, field) {
  const image = new Image(), id = about.asked[field], source = await lookUp(id);
  if (!source) throw new Error("What was given is here no more.");
  image.src = preview(source);
  await image.decode();
  const clip = new Clip(source.fps), canvas = make("canvas", { width: about.width, height: about.height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const draw = (picture) => { // covers the size, as the model is given it
    const scale = Math.max(about.width / picture.width, about.height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    pen.drawImage(picture, (about.width - w) / 2, (about.height - h) / 2, w, h);
    clip.frames.push(pen.getImageData(0, 0, about.width, about.height));
  };
  if (source.fps && "ImageDecoder" in window) {
    const decoder = new ImageDecoder({ data: (await fetch(image.src)).body, type: "image/webp" });
    await decoder.completed;
    for (let i = 0; i < decoder.tracks.selectedTrack.frameCount; i++) {
      const { image: frame } = await decoder.decode({ frameIndex: i });
      draw(await createImageBitmap(frame));
      frame.close();
    }
  } else draw(await createImageBitmap(image));
  cards.set(`source ${id}`, { clip, label: `source: ${field}` });
  sides = { a: `source ${id}`, b: about.id };
  compare();
}

function compare() {
  const [a, b] = [cards.get(sides.a), cards.get(sides.b)];
  $("compare").hidden = !(a && b);
  if (!a || !b) return;
  for (const [name, one] of [["a", a], ["b", b]]) {
    $(`name-${name}`).textContent = one.label;
    $(`name-${name}`).title = one.label;
    const canvas = $(`canvas-${name}`);
    for (const view of playing) if (view.canvas === canvas) stop(view);
    play({ clip: one.clip, canvas });
  }
  $("compare").scrollIntoView({ block: "nearest" });
}

// What there is already

async function remember() {
  const { clips } = await call("GET", "/api/clips");
  for (const [empty] of later) empty.remove(); // those that were never in sight: they are told again
  later.clear();
  older = clips.filter((about) => !cards.has(about.id));
  more();
  const { jobs } = await call("GET", "/api/jobs");
  for (const job of jobs) begin(job);
  watch(jobs.map((job) => job.id));
}

const later = new Map(); // where a clip will be: what is told of it
const arriving = new IntersectionObserver((changes) => {
  for (const { target } of changes.filter((each) => each.isIntersecting && later.has(each.target))) {
    const about = later.get(target);
    later.delete(target);
    arriving.unobserve(target);
    show(about, (fresh) => target.replaceWith(fresh)).catch(() => target.remove()); // it has just been forgotten
  }
}, { rootMargin: "300px" });

function more() { // frames are asked for when they are about to be seen
  for (const about of older.splice(0, PAGE)) {
    const empty = make("article", { className: "later" });
    later.set(empty, about);
    $("history").append(empty);
    arriving.observe(empty);
  }
  $("older").hidden = !older.length;
}

function watch(ids) {
  for (let i = 0; i < ids.length; i += 64) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ watch: ids.slice(i, i + 64) }));
  }
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
  let line = Promise.resolve(); // one message after the other
  socket.onmessage = ({ data }) => { line = line.then(() => heard(JSON.parse(data))).catch((error) => say(error.message, true)); };
  socket.onopen = guarded(async () => {
    const back = document.body.dataset.ready;
    document.body.dataset.ready = "true";
    for (const [id, one] of cards) if (one.bar && one.bar.isConnected) watch([id]);
    await remember();
    say(back ? "The server is back; what was made is here." : "Ready.");
    document.body.dataset.ready = "all";
  });
  socket.onclose = () => {
    say("The server has gone; trying again. What was made is kept.", true);
    setTimeout(connect, 1000);
  };
}

// What is pressed

$("ask").onsubmit = (event) => { event.preventDefault(); guarded(submit)(); };
$("ask").addEventListener("invalid", ({ target }) => { // what is wrong is seen
  if ($("more").contains(target)) $("more").open = true;
}, true);
$("next-seed").onclick = () => { $("seed").value = Number($("seed").value) + 1; guarded(submit)(); };
$("prompt").oninput = markWords;
$("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("ask").requestSubmit(); }
};
$("model").onchange = showModel;
$("task").onchange = showTask;
$("height").oninput = $("width").oninput = () => border.show();
$("strength").oninput = () => { $("strength-told").textContent = $("strength").value; };
for (const field of GIVEN)
  $(field).onchange = guarded(async ({ target }) => {
    if (!target.files.length) return;
    try { await upload(field, target.files[0]); } catch (error) { setUpload(field, uploads[field]); throw error; }
  });
$("brush-size").oninput = () => { brush.radius = Number($("brush-size").value); };
$("brush-clear").onclick = () => brush.clear();
$("box-add").onclick = guarded(async () => {
  const sides = $("box").value.split(",").map(Number);
  if (sides.length !== 4 || sides.some(Number.isNaN)) throw new Error("A box is four numbers: x, y, width, height in %.");
  brush.box(...sides);
});
$("split").oninput = () => {
  $("canvas-a").style.clipPath = `inset(0 ${100 - $("split").value}% 0 0)`;
  $("slider").style.setProperty("--split", `${$("split").value}%`);
};
$("split").oninput();
$("compare-close").onclick = () => { sides = { a: null, b: null }; compare(); };
$("older").onclick = more;
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) guarded(dropped)(event.dataTransfer.files[0]);
});

guarded(async () => {
  const told = await call("GET", "/api/models");
  models = told.models;
  makers = models.filter((each) => tasksOf(each).length);
  $("model").replaceChildren(...makers.map((each) => new Option(each.name, each.name)));
  $("to-play").hidden = !told.plays;
  if (makers.length) showModel();
  else {
    $("ask").hidden = true;
    $("nothing").textContent = "The models here make no clips" + (told.plays ? "; they are for Play, above." : ".");
  }
  connect();
})();
